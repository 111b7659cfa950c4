"""The life of a `williw up`: bus, provisioning, children, the job, and an end without leftovers."""

import importlib
import signal

import anyio
import anyio.to_thread
from anyio.abc import TaskGroup

from config import load
from config.settings import Settings
from messages.names import is_path
from messages.subjects import MODEL_REQUEST, MODEL_REQUESTED
from services.console import reaching, result
from services.console.embedded import EmbeddedNats
from services.console.failures import EXIT_DONE, EXIT_FAILED
from services.console.home import Home
from services.console.household import Child, household
from services.console.order import Order
from services.console.output import note, say
from services.console.supervisor import Supervisor
from services.console.views import View, shown
from services.console.waiting import follow_job, nodes_announced
from services.console.wanted import new_job_id
from services.console.watch import Watch
from services.runtime import provision
from services.runtime.bus import Bus, open_bus

_NODES_TIMEOUT_S = 10.0
_HEAD_START_S = 1.5


class Upbringing:
    """One `williw up`, from its first process to its last."""

    def __init__(self, home: Home, settings: Settings, order: Order) -> None:
        self._home = home
        self._settings = settings
        self._order = order
        self._server = EmbeddedNats(home.nats_dir, log_file=home.log_file("nats-server"))
        self._supervisor = Supervisor(home, self._server, self._told)
        self._view: View | None = None
        self._signals = 0

    async def run(self) -> int:
        """Run to the end that was ordered, or to a signal; returns the exit code."""
        reaching.quiet()
        self._server.start()
        self._home.write_url(self._server.url)
        codes: list[int] = []
        try:
            async with anyio.create_task_group() as outer:
                outer.start_soon(self._until_signalled, work := anyio.CancelScope())
                with work:
                    codes.append(await self._work())
                await self._supervisor.stop()
                outer.cancel_scope.cancel()
        finally:
            with anyio.CancelScope(shield=True):
                await self._supervisor.stop()
        if codes:
            return codes[0]
        return EXIT_FAILED if self._order.exit_when_done else EXIT_DONE

    async def _work(self) -> int:
        codes: list[int] = []
        async with anyio.create_task_group() as group:
            group.start_soon(self._supervisor.keep_server)
            group.start_soon(self._unless_hopeless, codes, group.cancel_scope)
            settings = load.load(overrides={"bus": {"url": self._server.url}})
            # What waits on the bus ends before the bus: a job may end while nodes still appear.
            async with open_bus(settings, "williw-up") as bus, anyio.create_task_group() as waiting:
                watch = Watch(new_job_id()) if self._order.model_name else None
                planner = await self._start(bus, settings, watch, group)
                waiting.start_soon(self._start_planner, bus, planner, group)
                code = await self._finish(bus, watch) if watch else EXIT_DONE
                if not self._order.exit_when_done:
                    self._tell_ready()
                    await anyio.sleep_forever()
                codes.append(code)
                waiting.cancel_scope.cancel()
            group.cancel_scope.cancel()
        return codes[0]

    async def _start(
        self, bus: Bus, settings: Settings, watch: Watch | None, group: TaskGroup
    ) -> Child:
        """Provision every child and start all but the planner, which it returns; the requester
        first, so that the job is accepted while the others are still starting.
        """
        kept = household(self._home.path, self._order.nodes, self._server.url, self._roots())
        await provision.provision_storage(bus, settings)
        # A node of an earlier run that was killed would be planned for until its entry expires.
        for entry in await bus.registry.nodes():
            await bus.registry.withdraw(entry.node.node_id)
        if watch:
            await bus.send(self._order.request(watch.job_id), MODEL_REQUEST)
        requester, *others, planner = kept
        await _provision(bus, requester)
        self._supervisor.start(group, [requester])
        for child in (*others, planner):
            await _provision(bus, child)
        with anyio.move_on_after(_HEAD_START_S):
            if watch:
                await bus.facts.wait(MODEL_REQUESTED, job_id=watch.job_id)
        self._supervisor.start(group, others)
        return planner

    async def _start_planner(self, bus: Bus, planner: Child, group: TaskGroup) -> None:
        """Start the planner once there is something to plan for."""
        wanted = {str(node.node_id) for node in self._order.nodes}
        missing = await nodes_announced(bus, wanted, _NODES_TIMEOUT_S)
        if missing:
            names = ", ".join(sorted(missing))
            self._told(f"not announced yet: {names}; see {self._home.path}/logs")
        self._supervisor.start(group, [planner])

    def _roots(self) -> list[str]:
        """Where the downloader may take local models from: as set, and the one asked for."""
        local = [self._order.model_name] if is_path(self._order.model_name) else []
        return [*self._settings.downloader.local_roots, *local]

    async def _finish(self, bus: Bus, watch: Watch) -> int:
        """Show the job to its end and tell the result; 0 where it is there, verified."""
        with shown(watch, as_json=self._order.as_json, began=self._order.began) as view:
            self._view = view
            try:
                await follow_job(bus, watch, on_fact=view.fact, on_progress=view.progress)
            finally:
                self._view = None
        report = None
        if watch.completed and watch.deliveries():
            report = await anyio.to_thread.run_sync(result.verified, watch)
        await result.tell(bus, watch, report, as_json=self._order.as_json)
        sound = report is None or (report.ok and report.coverage == "whole")
        return EXIT_DONE if watch.completed and sound else EXIT_FAILED

    def _tell_ready(self) -> None:
        tell = note if self._order.as_json else say
        tell(f"up: {self._server.url}, {len(self._order.nodes)} nodes, home {self._home.path}")
        tell(f"  williw tap --home {self._home.path}    shows what happens; Ctrl-C stops it all")

    async def _unless_hopeless(self, codes: list[int], scope: anyio.CancelScope) -> None:
        await self._supervisor.hopeless.wait()
        self._told(self._supervisor.complaint)
        codes.append(EXIT_FAILED)
        scope.cancel()

    async def _until_signalled(self, work: anyio.CancelScope) -> None:
        """The first signal ends the work, a second one ends the children at once."""
        with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM, signal.SIGHUP) as signals:
            async for _ in signals:
                self._signals += 1
                if self._signals > 1:
                    self._supervisor.kill()
                    continue
                self._told("stopping")
                work.cancel()

    def _told(self, text: str) -> None:
        (self._view.note if self._view else note)(text)


async def _provision(bus: Bus, child: Child) -> None:
    settings = load.load(overrides=child.overrides)
    build = importlib.import_module(f"services.{child.service}.service").build
    await provision.provision_consumers(bus, settings, [build(settings, bus)])
