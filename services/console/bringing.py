"""The life of a `williw up`: bus, provisioning, children, the job, and an end without leftovers."""

import importlib
import signal
from dataclasses import dataclass

import anyio
import anyio.to_thread

from config import load
from config.settings import Settings
from messages.ids import JobId, NodeId
from messages.jobs import ModelRequest
from messages.nodes import Node
from messages.plans import SplitPlan
from messages.subjects import MODEL_REQUEST
from messages.wishes import Wishes
from services.console import reaching, result
from services.console.embedded import EmbeddedNats
from services.console.failures import EXIT_DONE, EXIT_FAILED
from services.console.home import Home
from services.console.household import Child, household
from services.console.output import note, say, say_json
from services.console.supervisor import Supervisor
from services.console.views import View, shown
from services.console.waiting import follow_job, nodes_announced
from services.console.wanted import new_job_id, request_for
from services.console.watch import Watch
from services.runtime import provision
from services.runtime.bus import Bus, open_bus

_NODES_TIMEOUT_S = 10.0


@dataclass(frozen=True)
class Order:
    """What was asked of `williw up`; no `model_name` means: just be up. `began` is Unix seconds."""

    nodes: tuple[Node, ...]
    model_name: str
    strategy: str | None
    batch_size: int
    sequence_length: int
    exit_when_done: bool
    as_json: bool
    began: float

    def check(self) -> None:
        """Usage where the request could not be sent."""
        if self.model_name:
            self.request(new_job_id())

    def request(self, job_id: JobId) -> ModelRequest:
        """The request, to the first node as origin.

        One chain: the local nodes share a machine, so a second copy on them would serve nobody.
        """
        return request_for(
            self.model_name,
            batch_size=self.batch_size,
            sequence_length=self.sequence_length,
            strategy=self.strategy,
            job_id=job_id,
            node_id=NodeId(self.nodes[0].node_id),
            wishes=Wishes(replicas=1),
        )


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
            async with open_bus(settings, "williw-up") as bus:
                await self._start(bus, settings, group)
                code = await self._job(bus) if self._order.model_name else EXIT_DONE
                if not self._order.exit_when_done:
                    self._tell_ready()
                    await anyio.sleep_forever()
                codes.append(code)
            group.cancel_scope.cancel()
        return codes[0]

    async def _start(self, bus: Bus, settings: Settings, group: anyio.abc.TaskGroup) -> None:
        """Provision, then start every child; the planner once there is something to plan for."""
        roots = list(self._settings.downloader.local_roots)
        if self._order.model_name.startswith("/"):
            roots.append(self._order.model_name)
        kept = household(self._home.path, self._order.nodes, self._server.url, roots)
        await provision.provision_storage(bus, settings)
        # A node of an earlier run that was killed would be planned for until its entry expires.
        for entry in await bus.registry.nodes():
            await bus.registry.withdraw(entry.node.node_id)
        for child in kept:
            await _provision(bus, child)
        *first, planner = kept
        self._supervisor.start(group, first)
        group.start_soon(self._start_planner, bus, planner, group)

    async def _start_planner(self, bus: Bus, planner: Child, group: anyio.abc.TaskGroup) -> None:
        wanted = {str(node.node_id) for node in self._order.nodes}
        missing = await nodes_announced(bus, wanted, _NODES_TIMEOUT_S)
        if missing:
            self._told(
                f"not announced yet: {', '.join(sorted(missing))}; see {self._home.path}/logs"
            )
        self._supervisor.start(group, [planner])

    async def _job(self, bus: Bus) -> int:
        """Bring the model to the nodes, show it, tell the result; 0 where it is there, verified."""
        job_id = new_job_id()
        watch = Watch(job_id)
        request = self._order.request(job_id)
        await bus.send(request, MODEL_REQUEST, message_id=f"request-{job_id}")
        with shown(watch, as_json=self._order.as_json, began=self._order.began) as view:
            self._view = view
            try:
                await follow_job(bus, watch, on_fact=view.fact, on_progress=view.progress)
            finally:
                self._view = None
        plan = None
        if watch.state is not None and watch.state.plan is not None:
            plan = await bus.documents.load(watch.state.plan, SplitPlan)
        report = None
        if watch.completed and watch.deliveries():
            report = await anyio.to_thread.run_sync(result.verified, watch)
        if self._order.as_json:
            say_json(result.final_object(watch, plan, report))
        else:
            if plan is not None:
                result.show_plan(plan)
            result.show_end(watch, report)
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
