"""Which of a file's sources to ask now: the first on its route that answers and is trusted."""

from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field

import anyio
import structlog

from services.distributor.failures import Distrusted, NotYet, Silent, SourceTrouble
from services.distributor.transfer import Giver

log = structlog.get_logger()
Resolve = Callable[[str], Awaitable[Giver | None]]
_STRIKES = 3
_SILENT_REST_S = 30.0
_RESOLVED_S = 2.0


@dataclass
class Standing:
    """How one source has behaved in this delivery."""

    rests_until: float = 0.0
    troubles: int = 0
    gave_at: float = 0.0
    known_at: float = 0.0
    source: Giver | None = None
    resolved_at: float = -1e9
    spent: bool = False
    silent: bool = False


@dataclass
class Sources:
    """The sources of one delivery; `resolve` finds a node's address and our token for it.

    A source that says "not yet" is waited for up to `patience_s` from its last chunk on, and once
    that is spent, no more until it gives a chunk: else two such sources, each resting while the
    other is waited for, would keep a third from ever being asked. The more are out of patience,
    the less the next has. One that is silent rests for long, one that cannot be reached for a
    while, one that cheats is never asked again. One that is not in the registry has `grace_s` to
    appear.
    """

    resolve: Resolve
    patience_s: float = 8.0
    grace_s: float = 2.0
    distrusted: set[str] = field(default_factory=set)
    slow: set[str] = field(default_factory=set)
    _standing: dict[str, Standing] = field(default_factory=dict)

    async def pick(self, route: Sequence[str]) -> Giver | None:
        """The source to ask, or None while all of them rest."""
        now = anyio.current_time()
        for node_id in route:
            standing = self._of(node_id)
            if node_id in self.distrusted:
                continue
            if standing.rests_until > now:
                if _hiccup(standing) and node_id != route[-1]:
                    return None  # a hiccup: the plan's order is worth the wait
                continue
            if standing.source is None or now - standing.resolved_at > _RESOLVED_S:
                standing.source = await self.resolve(node_id)
                standing.resolved_at = anyio.current_time()
            if standing.source is not None:
                return standing.source
            if now - standing.known_at < self.grace_s and node_id != route[-1]:
                return None  # it may be starting: asking the next would undo the plan
        return None

    def exhausted(self, route: Iterable[str]) -> bool:
        """Whether every source of the route has cheated."""
        return all(node_id in self.distrusted for node_id in route)

    def gave(self, node_id: str) -> None:
        """It gave a verified chunk."""
        standing = self._of(node_id)
        standing.troubles, standing.gave_at = 0, anyio.current_time()
        standing.spent = False

    async def troubled(self, trouble: SourceTrouble) -> None:
        """Draw the consequence of what a source did, and wait as long as that takes."""
        now, standing = anyio.current_time(), self._of(trouble.source)
        standing.troubles += 1
        if isinstance(trouble, NotYet):
            if standing.spent or now - standing.gave_at > self._patience_s():
                standing.spent = True
                self.slow.add(trouble.source)
                self._rest(standing, now)
            else:
                await anyio.sleep(0.05)
        elif isinstance(trouble, Silent):
            standing.silent = True
            self.slow.add(trouble.source)
            log.info("source silent", source=trouble.source, why=str(trouble))
            self._rest(standing, now, _SILENT_REST_S)
        elif isinstance(trouble, Distrusted):
            self.distrusted.add(trouble.source)
            log.warning("source distrusted", source=trouble.source, why=str(trouble))
        else:
            self._rest(standing, now, min(0.25 * standing.troubles, 2.0))
        log.debug("source troubled", source=trouble.source, why=str(trouble))

    def _patience_s(self) -> float:
        return self.patience_s / (1 + sum(one.spent for one in self._standing.values()))

    def _rest(self, standing: Standing, now: float, for_s: float = 5.0) -> None:
        standing.rests_until = now + for_s
        standing.resolved_at = -1e9

    def _of(self, node_id: str) -> Standing:
        if node_id not in self._standing:
            now = anyio.current_time()
            self._standing[node_id] = Standing(gave_at=now, known_at=now)
        return self._standing[node_id]


def _hiccup(standing: Standing) -> bool:
    """Whether what a resting source did is likely to pass soon."""
    return standing.troubles < _STRIKES and not (standing.spent or standing.silent)
