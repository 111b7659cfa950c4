"""Who may fetch what: a token is checked against its digest in the fact of the job."""

import hashlib
import hmac
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Protocol

import anyio

from messages.ids import JobId, NodeId, is_id
from messages.plans import MegaphonePlan
from messages.shards import Access, ShardsReady
from services.distributor.routes import behind

_REREAD_S = 1.0


class Ask(Protocol):
    """How the newest `ShardsReady` of a job, and its access document, are read from the bus."""

    async def shards(self, job_id: JobId) -> ShardsReady | None:
        """The newest of the job, or None."""

    async def access(self, ready: ShardsReady) -> Access:
        """Who may fetch what."""


@dataclass
class Known:
    """What is known of a job's access, and when it was last looked for."""

    access: Access | None
    ready: ShardsReady | None
    at: float
    relay: MegaphonePlan | None = None

    def opens(self, node: NodeId, digest: str) -> bool:
        """Whether the file is part of this node's stage, or of one that it relays for."""
        files = self.access.files if self.access is not None else {}
        served = {node} if self.relay is None else {node} | behind(node, self.relay)
        return any(digest in files.get(one, ()) for one in served)


async def no_relay(_ready: ShardsReady) -> MegaphonePlan | None:
    """Nobody relays: each node may fetch what is its own."""
    return None


@dataclass
class Gate:
    """Admits those whom the origin of a job let in; `relay` reads who hands on to whom."""

    ask: Ask
    relay: Callable[[ShardsReady], Awaitable[MegaphonePlan | None]] = no_relay
    _known: dict[JobId, Known] = field(default_factory=dict)

    async def admits(self, job_id: str, token: str, digest: str) -> NodeId | None:
        """The node that this token is of, if it may fetch file `digest` for this job; else None."""
        if not is_id(job_id) or not token:
            return None
        shown = hashlib.sha256(token.encode()).hexdigest()
        known = await self._about(JobId(job_id))
        for again in (False, True):
            if again:  # a new generation may have come since
                known = await self._about(JobId(job_id), at_least=anyio.current_time())
            tokens = known.access.tokens if known.access is not None else {}
            for node, expected in tokens.items():
                if hmac.compare_digest(shown, expected) and known.opens(node, digest):
                    return node
        return None

    async def ready(self, job_id: JobId) -> ShardsReady | None:
        """The newest `ShardsReady` of the job that the gate has read."""
        return (await self._about(job_id)).ready

    async def needs(self, job_id: JobId, node_id: NodeId, digest: str) -> bool:
        """Whether a file is part of this node's own stage in the job."""
        access = (await self._about(job_id)).access
        return access is not None and digest in access.files.get(node_id, ())

    async def _about(self, job_id: JobId, at_least: float = 0.0) -> Known:
        known = self._known.get(job_id)
        now = anyio.current_time()
        fresh = known is not None and now - known.at < _REREAD_S
        if known is not None and (fresh or (known.access is not None and known.at >= at_least)):
            return known
        ready = await self.ask.shards(job_id)
        access = None if ready is None else await self.ask.access(ready)
        relay = None if ready is None else await self.relay(ready)
        known = Known(access, ready, now, relay)
        self._known[job_id] = known
        if len(self._known) > 256:
            del self._known[min(self._known, key=lambda job: self._known[job].at)]
        return known
