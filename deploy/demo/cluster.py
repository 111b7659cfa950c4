"""Three nats-servers, services with a key each, and jobs in spite of deaths, on one machine.

From a checkout's root: `make cluster-demo`, or `python -m deploy.demo.cluster MODEL...`
"""

import argparse
import os
import signal
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import anyio
import anyio.to_thread
from anyio.abc import TaskGroup

from config import load
from config.settings import Settings
from deploy.demo.crew import House
from deploy.demo.servers import Servers, certify
from messages.base import Fact
from messages.failures import Passing, Permanent
from messages.ids import NodeId
from messages.names import is_path
from messages.plans import NodeAssigned
from messages.state import Said
from messages.subjects import MODEL_REQUEST
from messages.wishes import Wishes
from services.console import authorizing, reaching, result
from services.console.building import services_of
from services.console.capacity import local_nodes_of_this_machine
from services.console.home import Home
from services.console.members import Members
from services.console.output import note, say, size
from services.console.supervisor import Supervisor
from services.console.waiting import follow_job, nodes_announced
from services.console.wanted import model_named, new_job_id, request_for
from services.console.watch import Watch
from services.runtime import names, provision
from services.runtime.bus import Bus, open_bus
from services.runtime.connection import BUS_TROUBLE

_AWAY_S = 1.0
_START_TIMEOUT_S = 120.0


class Demo:
    """One demonstration, from its first process to its last."""

    def __init__(self, house: House, servers: Servers, *, deaths: bool) -> None:
        self._house = house
        self._servers = servers
        self._deaths = deaths
        self._home = Home(house.folder)
        self._home.run_dir.mkdir()
        self._supervisor = Supervisor(self._home, None, lambda text: say(f"  {text}"))
        self._under_way, self._assigned, self._back = anyio.Event(), anyio.Event(), anyio.Event()
        self._victim = ""

    async def run(self, timeout_s: float) -> int:
        """Run it all; 0 where every job completed and verified. Ends every process it started."""
        codes: list[int] = []
        try:
            async with anyio.create_task_group() as group:
                with anyio.move_on_after(timeout_s) as work:
                    group.start_soon(_until_signalled, work)
                    codes.append(await self._work(group))
                if not codes:
                    note("stopped" if work.deadline > anyio.current_time() else "out of time")
                group.cancel_scope.cancel()
        finally:
            await self._supervisor.stop()
            self._servers.stop()
        say("every process has ended")
        return codes[0] if codes else 1

    async def _work(self, group: TaskGroup) -> int:
        await self._servers.start(*self._servers.names)
        say(f"{', '.join(self._servers.names)}: a cluster with TLS, three copies of every stream")
        async with open_bus(self._settings("operator"), "operator") as operator:
            await self._provision(operator)
            kept = self._house.children()
            self._supervisor.start(group, kept)
            say(f"{len(kept)} services, each a process with its own key and no more permissions")
            wanted = {str(node.node_id) for node in self._house.nodes}
            missing = await nodes_announced(operator, wanted, _START_TIMEOUT_S)
            if missing:
                note(f"not announced: {', '.join(sorted(missing))}; see {self._house.folder}/logs")
                return 1
            say(f"{len(wanted)} nodes, {self._house.origins} of them origins")
            if self._deaths:
                group.start_soon(self._death_of_a_node)
                group.start_soon(self._deaths_of, operator)
            async with open_bus(self._settings("client"), "williw-console") as client:
                code = await self._jobs(client)
            if self._deaths:  # jobs may end sooner than a server that was killed is missed
                await self._back.wait()
            return code

    def _settings(self, user: str) -> Settings:
        return load.load(environ={}, overrides={"bus": self._house.bus(user)})

    async def _provision(self, operator: Bus) -> None:
        """Make streams and consumers, as soon as the servers have agreed on who leads."""
        settings = self._settings("operator")
        services = services_of(operator, settings, self._house.node_ids, self._house.origin_ids)
        with anyio.fail_after(_START_TIMEOUT_S):
            while True:
                try:
                    await provision.provision_storage(operator, settings)
                    await provision.provision_consumers(operator, settings, services)
                except Passing:
                    await anyio.sleep(0.2)
                else:
                    return

    async def _jobs(self, client: Bus) -> int:
        """Ask for every model at once, and follow each job to its end."""
        sound: list[bool] = []

        async def one(place: int, model: str) -> None:
            sound.append(await self._job(client, place, model))

        async with anyio.create_task_group() as jobs:
            for place, model in enumerate(self._house.models):
                jobs.start_soon(one, place, model)
        say(f"{sum(sound)} of {len(sound)} jobs completed, every digest of every stage verified")
        return 0 if all(sound) else 1

    async def _job(self, client: Bus, place: int, model: str) -> bool:
        origins = self._house.origin_ids
        watch = Watch(new_job_id())
        request = request_for(
            model,
            job_id=watch.job_id,
            node_id=NodeId(origins[place % len(origins)]),
            wishes=Wishes(replicas=1),
        )
        while True:
            try:
                await client.send(request, MODEL_REQUEST, message_id=watch.job_id)
                break
            except Passing:
                await anyio.sleep(0.2)
        await follow_job(client, watch, on_fact=self._learn)
        if not watch.completed:
            result.show_end(watch, None)
            return False
        report = await anyio.to_thread.run_sync(result.verified, watch)
        sound = report.ok and report.coverage == "whole"
        parts = ", ".join(f"{f.node_id} {size(f.size_bytes)}" for f in watch.deliveries())
        verdict = "verified" if sound else "NOT verified"
        say(f"{watch.job_id} {verdict}: {Path(model).name}: {parts}")
        for problem in report.problems:
            say(f"  {problem}")
        return sound

    def _learn(self, said: Said[Fact]) -> None:
        """Take note of what deaths wait for."""
        self._under_way.set()
        fact, origins = said.fact, self._house.origin_ids
        if isinstance(fact, NodeAssigned) and fact.node_id not in origins and not self._victim:
            self._victim = fact.node_id
            self._assigned.set()

    async def _death_of_a_node(self) -> None:
        """Kill the distributor of a node as soon as it has a part to fetch."""
        await self._assigned.wait()
        self._kill(f"distributor-{self._victim}")

    async def _deaths_of(self, operator: Bus) -> None:
        """While jobs are under way: a planner, and the server that leads."""
        await self._under_way.wait()
        self._kill(f"planner-{self._house.nodes[0].node_id}")
        leader = await _leader(operator)
        say(f"  killing {leader}, which leads the stream of facts")
        self._servers.kill(leader)
        await anyio.sleep(_AWAY_S)
        await self._servers.start(leader)
        say(f"  {leader} is back")
        self._back.set()

    def _kill(self, name: str) -> None:
        say(f"  killing {name}")
        os.killpg(int((self._home.run_dir / f"{name}.pid").read_text()), signal.SIGKILL)


async def _leader(operator: Bus) -> str:
    while True:
        try:
            info = await operator.client.jetstream(timeout=5).stream_info(names.FACTS_STREAM)
        except BUS_TROUBLE:
            await anyio.sleep(0.2)
            continue
        if info.cluster is not None and info.cluster.leader:
            return str(info.cluster.leader)


async def _until_signalled(work: anyio.CancelScope) -> None:
    with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async for _ in signals:
            work.cancel()


def main(arguments: Sequence[str]) -> int:
    """The exit code of a demonstration: 0 where every job completed and verified."""
    parser = argparse.ArgumentParser(prog="cluster-demo", description=__doc__)
    parser.add_argument("models", nargs="+", metavar="MODEL", help="a directory, or org/name")
    parser.add_argument("--nodes", type=int, default=8, help="how many, origins included (8)")
    parser.add_argument("--origins", type=int, default=2, help="how many of them hold models (2)")
    parser.add_argument(
        "--times", type=int, default=1, help="bring each directory under so many names (1)"
    )
    parser.add_argument("--home", type=Path, help="keep everything below this new directory")
    parser.add_argument("--timeout-s", type=float, default=600.0, help="give up after (600)")
    parser.add_argument("--no-deaths", action="store_true", help="kill nothing while it runs")
    asked = parser.parse_args(arguments)
    if not 1 <= asked.origins <= asked.nodes:
        parser.error("--origins must be 1 to --nodes")
    if asked.times < 1:
        parser.error("--times must be 1 or more: without a job there is nothing to show")
    reaching.quiet()
    try:
        if asked.home is None:
            with tempfile.TemporaryDirectory(prefix="williw-cluster-") as folder:
                return _run(asked, Path(folder))
        asked.home.mkdir(parents=True)
        return _run(asked, asked.home.absolute())
    except (Permanent, OSError) as error:
        note(f"error: {error}")
        return 1


def _run(asked: argparse.Namespace, folder: Path) -> int:
    certify(folder / "tls")
    servers = Servers(folder)
    house = House(
        folder=folder,
        url=servers.url,
        nodes=local_nodes_of_this_machine(asked.nodes, folder),
        origins=asked.origins,
        models=_models(asked.models, asked.times, folder / "models"),
    )
    members = Members(origins=house.origin_ids, nodes=house.node_ids)
    made = authorizing.write_auth(folder / "auth", load.load(environ={}), members)
    say(f"{len(made['keys'])} keys, and what each may say and hear, below {folder}/auth")
    demo = Demo(house, servers, deaths=not asked.no_deaths)
    return anyio.run(demo.run, asked.timeout_s, backend="asyncio")


def _models(asked: Sequence[str], times: int, folder: Path) -> tuple[str, ...]:
    """The models by name; a directory under `times` names, each a model of its own."""
    found: list[str] = []
    folder.mkdir()
    for model in map(model_named, asked):
        if times == 1 or not is_path(model):
            found.append(model)
            continue
        for k in range(times):
            link = folder / f"{Path(model).name}-{k + 1}"
            link.symlink_to(model)
            found.append(str(link))
    return tuple(found)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
