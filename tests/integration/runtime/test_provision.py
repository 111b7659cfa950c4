"""Provisioning a bus that is provisioned already: what differs is changed, and told."""

import json
from pathlib import Path

import pytest

from config import load
from config.settings import Settings
from messages.ids import JobId, NodeId
from messages.jobs import ModelRequest, ModelRequested
from messages.subjects import MODEL_REQUESTED
from services.console import app
from services.console.embedded import EmbeddedNats
from services.runtime import names, provision
from services.runtime.bus import Bus, open_bus
from tests.bus_fixture import entry

STREAMS = (
    names.FACTS_STREAM,
    names.DEAD_STREAM,
    f"KV_{names.NODES_BUCKET}",
    f"KV_{names.GRANTS_BUCKET}",
    f"OBJ_{names.DOCUMENTS_BUCKET}",
)


def settings_of(server: EmbeddedNats, **bus: object) -> Settings:
    own = {"url": server.url, **bus}
    return load.load(environ={}, overrides={"bus": own, "node": {"expires_s": 30.0}})


async def configured(bus: Bus) -> dict[str, dict[str, object]]:
    js = bus.client.jetstream()
    found = {name: (await js.stream_info(name)).config.as_dict() for name in STREAMS}
    return {name: {k: v for k, v in c.items() if k != "metadata"} for name, c in found.items()}


async def test_a_second_provisioning_changes_nothing(nats_server: EmbeddedNats) -> None:
    settings = settings_of(nats_server)
    async with open_bus(settings, "test") as bus:
        assert await provision.provision_storage(bus, settings) == ()
        before = await configured(bus)
        assert await provision.provision_storage(bus, settings) == ()
        assert await configured(bus) == before


@pytest.mark.parametrize("max_age_s", [60.0, 3 * 86_400.0, 30 * 86_400.0])
async def test_other_limits_make_the_streams_that_a_fresh_bus_would_have(
    nats_server: EmbeddedNats, tmp_path: Path, max_age_s: float
) -> None:
    other = {"max_age_s": max_age_s, "max_bytes": 1 << 20, "documents_max_bytes": 0}
    settings = settings_of(nats_server)
    async with open_bus(settings, "test") as bus:
        await provision.provision_storage(bus, settings)
        fact = ModelRequested(
            origin=NodeId("o"), job_id=JobId("job-1"), request=ModelRequest(model_name="a/b")
        )
        await bus.facts.say(fact)
        await bus.registry.announce(entry("node_001"))
        changes = await provision.provision_storage(bus, settings_of(nats_server, **other))
        changed = await configured(bus)
        told = {(c.name, c.setting): (c.was, c.now) for c in changes}
        assert told[names.FACTS_STREAM, "max_age"] == (7 * 86_400.0, max_age_s)
        assert told[names.FACTS_STREAM, "max_bytes"] == (1 << 30, 1 << 20)
        assert told[f"OBJ_{names.DOCUMENTS_BUCKET}", "max_bytes"] == (4 << 30, -1)
        assert not [key for key in told if key[0] == f"KV_{names.NODES_BUCKET}"]
        kept = await bus.facts.last(MODEL_REQUESTED, job_id=JobId("job-1"))
        assert kept is not None
        assert kept.fact == fact
        assert await provision.provision_storage(bus, settings_of(nats_server, **other)) == ()
    with EmbeddedNats(tmp_path / "fresh") as server:
        fresh = settings_of(server, **other)
        async with open_bus(fresh, "test") as bus:
            assert await provision.provision_storage(bus, fresh) == ()
            assert await configured(bus) == changed


async def test_a_node_expires_by_the_new_settings(nats_server: EmbeddedNats) -> None:
    settings = settings_of(nats_server)
    async with open_bus(settings, "test") as bus:
        await provision.provision_storage(bus, settings)
        own, node = {"url": nats_server.url}, {"expires_s": 1.0}
        quick = load.load(environ={}, overrides={"bus": own, "node": node})
        changes = await provision.provision_storage(bus, quick)
        assert {(c.name, c.setting, c.now) for c in changes} == {
            (f"KV_{names.NODES_BUCKET}", setting, 1.0)
            for setting in ("max_age", "duplicate_window", "subject_delete_marker_ttl")
        }


async def test_what_an_administrator_set_beside_stays(nats_server: EmbeddedNats) -> None:
    settings = settings_of(nats_server)
    async with open_bus(settings, "test") as bus:
        await provision.provision_storage(bus, settings)
        js = bus.client.jetstream()
        info = await js.stream_info(names.FACTS_STREAM)
        await js.update_stream(info.config.evolve(description="ours", compression="s2"))
        changes = await provision.provision_storage(
            bus, settings_of(nats_server, max_bytes=1 << 20)
        )
        assert {c.setting for c in changes} == {"max_bytes"}
        now = (await js.stream_info(names.FACTS_STREAM)).config
        assert (now.description, now.compression) == ("ours", "s2")


def test_the_command_says_what_it_changed(
    nats_server: EmbeddedNats,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = ["provision", "--origin", "o-1", "--nats-url", nats_server.url]
    assert app.run(words) == 0
    assert "changed" not in capsys.readouterr().out
    monkeypatch.setenv("WILLIW_BUS_MAX_BYTES", str(1 << 20))
    assert app.run(words) == 0
    said = f"changed: {names.FACTS_STREAM} max_bytes from {1 << 30} to {1 << 20}"
    assert said in capsys.readouterr().out.splitlines()
    assert app.run([*words, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["changed"] == []
