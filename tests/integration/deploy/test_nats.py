"""The server configurations in deploy/nats: started as they are, but for ports and directories."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import anyio
import pytest

from config import load
from config.settings import Settings
from messages.failures import Passing
from messages.ids import JobId, NodeId
from messages.jobs import ModelRequest, ModelRequested
from messages.subjects import MODEL_REQUESTED, NODE_ASSIGNED
from services.console import children, embedded
from services.runtime import names, provision
from services.runtime.bus import Bus, open_bus
from services.runtime.connection import BUS_TROUBLE, BusUnreachable
from tests.integration.deploy.conftest import wait_for_port

CONFIGS = Path(__file__).parents[3] / "deploy" / "nats"
WILLIW = [sys.executable, "-m", "services.console"]
ORIGIN, NODE, FAR_NODE = "node_001", "node_002", "node_003"


def free_ports(count: int) -> list[int]:
    with ExitStack() as open_sockets:
        found = [open_sockets.enter_context(socket.socket()) for _ in range(count)]
        for one in found:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in found]


class Site:
    """A directory as an administrator lays it out, beside a configuration of deploy/nats."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "tls").mkdir(parents=True)
        tls = folder / "tls"
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1",
             "-nodes", "-keyout", tls / "server.key", "-out", tls / "server.crt", "-days", "2",
             "-subj", "/CN=williw", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"],
            check=True, capture_output=True, timeout=100,
        )  # fmt: skip
        (tls / "ca.crt").write_bytes((tls / "server.crt").read_bytes())
        self.williw("--auth", str(folder / "auth"))

    def williw(self, *words: str, url: str = "", user: str = "operator") -> str:
        """What `williw provision` of an origin and a node prints, as this user."""
        environ = {**os.environ, **self.environ(url, user)} if url else dict(os.environ)
        done = subprocess.run(
            [*WILLIW, "provision", *words, "--origin", ORIGIN, "--node", NODE],
            env=environ, capture_output=True, text=True, check=False, timeout=100,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def environ(self, url: str, user: str) -> dict[str, str]:
        return {
            "WILLIW_NATS_URL": url,
            "WILLIW_BUS_NKEY_FILE": str(self.folder / "auth" / f"{user}.nk"),
            "WILLIW_BUS_TLS_CA_FILE": str(self.folder / "tls" / "ca.crt"),
        }

    def settings(self, url: str, user: str) -> Settings:
        return load.load(environ=self.environ(url, user))

    @contextmanager
    def server(
        self,
        config: str,
        port: int,
        *more: str,
        environ: Mapping[str, str] | None = None,
        replaced: Mapping[str, str] | None = None,
    ) -> Iterator[None]:
        """nats-server with this configuration, `replaced` texts apart."""
        text = (CONFIGS / config).read_text()
        store = self.folder / f"store-{port}"
        for old, new in {"/var/lib/nats": str(store), **(replaced or {})}.items():
            assert old in text or old == "/var/lib/nats", f"{config} has no {old!r}"
            text = text.replace(old, new)
        file, logged = self.folder / f"{port}-{config}", self.folder / f"{port}.log"
        file.write_text(text)
        command = [embedded.nats_server(), "-c", str(file), "-p", str(port), *more]
        with logged.open("wb") as out:
            process = subprocess.Popen(
                command, cwd=self.folder, env={**os.environ, **(environ or {})},
                stdout=out, stderr=out, start_new_session=True,
            )  # fmt: skip
        try:
            wait_for_port(port, logged)
            yield
        finally:
            children.end(process)
            process.wait(10)


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path / "site")


def requested(job: str) -> ModelRequested:
    return ModelRequested(
        origin=NodeId(ORIGIN), job_id=JobId(job), request=ModelRequest(model_name="org/name")
    )


async def said_and_read(speaker: Bus, reader: Bus, job: str) -> None:
    """One service says a fact through its server, another reads it through its own."""
    await speaker.facts.say(requested(job))
    read = await reader.facts.last(MODEL_REQUESTED, job_id=JobId(job))
    assert read is not None
    assert read.fact == requested(job)


async def test_one_server_with_tls_and_keys(site: Site) -> None:
    port, leaf = free_ports(2)
    url = f"tls://127.0.0.1:{port}"
    with site.server("single.conf", port, replaced={"port: 7422": f"port: {leaf}"}):
        assert "WILLIW" in site.williw(url=url)
        async with (
            open_bus(site.settings(url, f"{ORIGIN}/requester"), f"requester-{ORIGIN}") as speaker,
            open_bus(site.settings(url, f"{ORIGIN}/planner"), f"planner-{ORIGIN}") as reader,
        ):
            await said_and_read(speaker, reader, "job-1")
        nobody = load.load(
            environ={**site.environ(url, "operator"), "WILLIW_BUS_NKEY_FILE": ""},
            overrides={"bus": {"connect_timeout_s": 3.0}},
        )
        with pytest.raises(BusUnreachable):
            async with open_bus(nobody, "nobody"):
                pass


def door(port: int) -> dict[str, str]:
    """Where leaves connect, in place of the configuration's port."""
    return {"port: 7422": f'listen: "127.0.0.1:{port}"'}


async def assigned_and_taken(operator: Bus, reader: Bus, node_id: str) -> None:
    """The node's part, said at the hub, comes to the node through its leaf, and is acknowledged."""
    assigned = NODE_ASSIGNED.where(node_id=node_id, job_id="job-1", generation=1)
    await operator.client.jetstream().publish(assigned, b"{}")
    taken = await reader.client.jetstream().pull_subscribe_bind(
        f"distributor-node_assigned-{node_id}", stream=names.FACTS_STREAM
    )
    (message,) = await taken.fetch(1, timeout=30)
    assert message.subject == assigned
    await message.ack_sync(timeout=30)


async def test_nodes_at_two_other_sites_work_through_a_leaf_each(site: Site) -> None:
    port, one, other, hub_port = free_ports(4)
    hub = f"tls://127.0.0.1:{port}"
    there = {"HUB": json.dumps(f"tls://127.0.0.1:{hub_port}")}
    site.williw("--auth", str(site.folder / "auth"), "--node", FAR_NODE)
    with (
        site.server("single.conf", port, replaced=door(hub_port)),
        site.server("leaf.conf", one, environ=there),
        site.server("leaf.conf", other, environ=there),
    ):
        site.williw("--node", FAR_NODE, url=hub)
        async with (
            open_bus(site.settings(hub, f"{ORIGIN}/requester"), f"requester-{ORIGIN}") as speaker,
            open_bus(site.settings(hub, "operator"), "operator") as operator,
            open_bus(
                site.settings(f"tls://127.0.0.1:{one}", f"{NODE}/distributor"),
                f"distributor-{NODE}",
            ) as near,
            open_bus(
                site.settings(f"tls://127.0.0.1:{other}", f"{FAR_NODE}/distributor"),
                f"distributor-{FAR_NODE}",
            ) as far,
        ):
            # Twice: two leaves that drive each other out take turns.
            for turn in range(2):
                await said_and_read(speaker, near, f"job-near-{turn}")
                await said_and_read(speaker, far, f"job-far-{turn}")
            await assigned_and_taken(operator, near, NODE)
            await assigned_and_taken(operator, far, FAR_NODE)
            for user in ("client", "tap"):
                there_too = site.settings(f"tls://127.0.0.1:{one}", user)
                async with open_bus(there_too, "williw-console", apart=True) as person:
                    await said_and_read(speaker, person, f"job-{user}")
    logged = (site.folder / f"{port}.log").read_text()
    assert logged.count("Leafnode connection created") == 2
    assert "Duplicate" not in logged


async def test_a_leafs_door_is_locked_to_whoever_does_not_speak_tls(site: Site) -> None:
    port, hub_port = free_ports(2)
    there = {"HUB": json.dumps(f"tls://127.0.0.1:{hub_port}")}
    plain = {**site.environ(f"nats://127.0.0.1:{port}", f"{NODE}/distributor")}
    plain["WILLIW_BUS_TLS_CA_FILE"] = ""
    with site.server("leaf.conf", port, environ=there):
        told = load.load(environ=plain, overrides={"bus": {"connect_timeout_s": 2.0}})
        with pytest.raises(BusUnreachable):
            async with open_bus(told, f"distributor-{NODE}"):
                pass


async def test_three_servers_keep_three_copies_and_outlive_one(site: Site) -> None:
    ports, routes, doors = free_ports(3), free_ports(3), free_ports(3)
    (leaf,) = free_ports(1)
    url = ",".join(f"tls://127.0.0.1:{port}" for port in ports)
    with ExitStack() as servers:
        own = []
        for k in range(3):
            replaced = {
                f"nats-route://nats-{peer + 1}:6222": f"nats-route://127.0.0.1:{routes[peer]}"
                for peer in range(3)
            }
            replaced["port: 6222"] = f'listen: "127.0.0.1:{routes[k]}"'
            server = site.server(
                "cluster.conf", ports[k], "--name", f"nats-{k + 1}",
                replaced={**replaced, **door(doors[k])},
            )  # fmt: skip
            own.append(servers.enter_context(ExitStack()))
            own[k].enter_context(server)
        environ = site.environ(url, "operator")
        settings = load.load(environ={**environ, "WILLIW_BUS_REPLICAS": "3"})
        async with open_bus(settings, "operator") as operator:
            assert await provisioned(operator, load.load(environ=environ)) == ()
            changes = await provisioned(operator, settings)
            assert [(c.setting, c.was, c.now) for c in changes] == 5 * [("num_replicas", 1, 3)]
            await copied(operator)
            await operator.facts.say(requested("job-1"))
            there = {"HUB": json.dumps(f"tls://127.0.0.1:{doors[0]}")}
            servers.enter_context(site.server("leaf.conf", leaf, environ=there))
            node = site.settings(f"tls://127.0.0.1:{leaf}", f"{NODE}/distributor")
            async with open_bus(node, f"distributor-{NODE}") as far:
                await said_and_read(operator, far, "job-far")
                own[0].close()
                with anyio.fail_after(60):
                    await said_and_read_again(operator, far, "job-2")
            read = await operator.facts.last(MODEL_REQUESTED, job_id=JobId("job-1"))
            assert read is not None


async def provisioned(bus: Bus, settings: Settings) -> tuple[provision.Change, ...]:
    """Provision once the three servers have agreed on a leader; what was changed."""
    with anyio.fail_after(60):
        while True:
            try:
                return await provision.provision_storage(bus, settings)
            except BusUnreachable:
                await anyio.sleep(0.2)


async def copied(bus: Bus) -> None:
    """Return once the two further copies of the facts are whole."""
    js = bus.client.jetstream(timeout=5)
    with anyio.fail_after(60):
        while True:
            with suppress(*BUS_TROUBLE):
                cluster = (await js.stream_info(names.FACTS_STREAM)).cluster
                copies = (cluster.replicas or []) if cluster else []
                if len(copies) == 2 and all(copy.current for copy in copies):
                    return
            await anyio.sleep(0.1)


async def said_and_read_again(speaker: Bus, reader: Bus, job: str) -> None:
    while True:
        try:
            await said_and_read(speaker, reader, job)
        except (Passing, *BUS_TROUBLE):
            await anyio.sleep(0.2)
        else:
            return
