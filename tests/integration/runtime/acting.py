"""A small downloader on a bus, what it says, and what became of its messages."""

from collections.abc import Awaitable, Callable, Iterable

import anyio

from messages.base import Fact
from messages.dead import DeadLetter
from messages.ids import JobId, NodeId
from messages.jobs import JobEnded, ModelRequest, ModelRequested
from messages.models import ModelDownloaded
from messages.state import Said
from messages.subjects import JOB_ENDED, MODEL_REQUESTED
from messages.wire import decode
from services.runtime import names
from services.runtime.bus import Bus
from services.runtime.service import Route, Service

NODE, JOB = NodeId("node_001"), JobId("job-1")
REQUESTED = ModelRequested(origin=NODE, job_id=JOB, request=ModelRequest(model_name="org/name"))
Handler = Callable[[ModelRequested], Awaitable[Iterable[Fact]]]


def downloaded(requested: ModelRequested, path: str = "/models/x") -> ModelDownloaded:
    return ModelDownloaded(
        origin=requested.origin,
        job_id=requested.job_id,
        generation=requested.generation,
        request=requested.request,
        revision="r",
        model_path=path,
        files_downloaded=(),
        total_size_bytes=0,
        total_size_mb=0,
    )


def downloader(handle: Handler, slots: int = 1, *, patient: bool = False) -> Service:
    route = Route(MODEL_REQUESTED, handle, where={"origin": NODE}, slots=slots, patient=patient)
    return Service("downloader", routes=(route,))


async def ended(bus: Bus, job_id: JobId = JOB) -> Said[JobEnded]:
    with anyio.fail_after(30):
        return await bus.facts.wait(JOB_ENDED, job_id=job_id)


async def dead_letters(bus: Bus) -> list[DeadLetter]:
    js = bus.client.jetstream()
    info = await js.stream_info(names.DEAD_STREAM)
    bodies = [await js.get_msg(names.DEAD_STREAM, n + 1) for n in range(info.state.messages)]
    return [decode(body.data or b"", DeadLetter) for body in bodies]


async def acknowledged(bus: Bus, service: str = "downloader") -> None:
    """Wait until the service's consumer has nothing left to do, and has had the newest message.

    What is stored is counted as pending a moment later.
    """
    js = bus.client.jetstream()
    newest = await js.get_last_msg(names.FACTS_STREAM, MODEL_REQUESTED.where(origin=NODE))
    with anyio.fail_after(30):
        while True:
            info = await js.consumer_info(names.FACTS_STREAM, f"{service}-model_requested-{NODE}")
            came = info.delivered.stream_seq if info.delivered else 0
            if not info.num_pending and not info.num_ack_pending and came >= (newest.seq or 0):
                return
            await anyio.sleep(0.05)
