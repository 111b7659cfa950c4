"""Which stages the jobs that run may still ask an origin for."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from messages.ids import JobId
from messages.plans import SplitPlanned
from messages.shards import ShardsReady
from messages.state import Said
from messages.subjects import JOB_ENDED, SHARDS_READY, SPLIT_PLANNED
from services.runtime.bus import Bus

MARGIN_S = 60.0
"""By how much this machine's clock may be behind the server's."""


@dataclass(frozen=True)
class InUse:
    """Stages by digest, and since when (Unix seconds) any other may belong to one being cut."""

    stages: frozenset[str]
    since: float


async def in_use(bus: Bus) -> InUse:
    """What the bus's facts say of it now."""
    planned = await bus.facts.read(SPLIT_PLANNED)
    ready = await bus.facts.read(SHARDS_READY)
    ended = await bus.facts.read(JOB_ENDED)
    return of_facts((*planned, *ready, *ended))


def of_facts(said: Iterable[Said[Any]]) -> InUse:
    """Of a job that was planned and has not ended: its stages, or, uncut, all since its plan."""
    facts = list(said)
    planned = {_name(one): one.at for one in facts if isinstance(one.fact, SplitPlanned)}
    ready = {_name(one): one.fact for one in facts if isinstance(one.fact, ShardsReady)}
    ended: dict[JobId, int] = {}
    for one in facts:
        if not isinstance(one.fact, SplitPlanned | ShardsReady):
            ended[one.fact.job_id] = max(one.fact.generation, ended.get(one.fact.job_id, 0))
    runs = {name: at for name, at in planned.items() if name[1] > ended.get(name[0], 0)}
    return InUse(
        frozenset(
            stage.manifest.sha256 for name in runs if name in ready for stage in ready[name].stages
        ),
        min((at - MARGIN_S for name, at in runs.items() if name not in ready), default=math.inf),
    )


def _name(said: Said[Any]) -> tuple[JobId, int]:
    return said.fact.job_id, said.fact.generation
