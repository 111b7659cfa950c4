"""The requester's routes and endpoints."""

from config.settings import Settings
from messages.ids import NodeId
from messages.subjects import (
    API_CANCEL,
    API_NODES,
    API_PLAN,
    API_PROCESS,
    API_REQUEST,
    API_STATUS,
    JOB_CANCEL,
    MODEL_REQUEST,
    MODEL_REQUESTED,
)
from services.requester.api import Answers
from services.requester.jobs import Jobs
from services.runtime.bus import Bus
from services.runtime.service import Endpoint, Route, Service

_SLOTS = 64


def build(settings: Settings, bus: Bus) -> Service:
    """The requester of this node; several copies share the work."""
    jobs = Jobs(bus, NodeId(settings.node.node_id), settings.node.origin)
    answers = Answers(bus, jobs, settings.requester.process_timeout_s)
    return Service(
        "requester",
        routes=(
            Route(MODEL_REQUEST, jobs.accept, slots=_SLOTS, stage="request"),
            Route(JOB_CANCEL, jobs.cancel, slots=_SLOTS, stage="cancel"),
            Route(MODEL_REQUESTED, jobs.expire, slots=_SLOTS, patient=True, part="deadline"),
        ),
        endpoints=(
            Endpoint(API_REQUEST, answers.request),
            Endpoint(API_PROCESS, answers.process),
            Endpoint(API_PLAN, answers.plan),
            Endpoint(API_STATUS, answers.status),
            Endpoint(API_CANCEL, answers.cancel),
            Endpoint(API_NODES, answers.nodes),
        ),
    )
