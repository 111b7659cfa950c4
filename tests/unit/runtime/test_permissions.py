"""Permissions follow the table of subjects: what is said and heard is allowed, and no more."""

import pytest

from config import load
from config.settings import Settings
from messages.subjects import COMMANDS, FACTS, JOB_ENDED, PROGRESS
from services.console.building import as_node, services_of
from services.runtime import authorization, permissions
from services.runtime.bus import unconnected
from services.runtime.permissions import Permissions
from services.runtime.service import Service

ORIGIN, NODE = "origin-1", "node-1"


def settings() -> Settings:
    return load.load(environ={})


def built(node_id: str) -> list[Service]:
    own = as_node(settings(), node_id, node_id == ORIGIN)
    origins, nodes = ((ORIGIN,), ()) if node_id == ORIGIN else ((), (node_id,))
    return services_of(unconnected(), own, nodes, origins)


CASES = [(node_id, service) for node_id in (ORIGIN, NODE) for service in built(node_id)]
NAMES = [f"{node_id}/{service.name}" for node_id, service in CASES]


def allows(patterns: tuple[str, ...], subject: str) -> bool:
    """Whether a server with these patterns lets `subject`, of tokens or `*`, pass."""
    return any(_covers(pattern.split("."), subject.split(".")) for pattern in patterns)


def _covers(pattern: list[str], subject: list[str]) -> bool:
    for place, token in enumerate(pattern):
        if token == ">":
            return place < len(subject)
        if place >= len(subject) or token not in ("*", subject[place]):
            return False
    return len(pattern) == len(subject)


@pytest.mark.parametrize(("node_id", "service"), CASES, ids=NAMES)
def test_a_service_may_say_its_facts_of_its_own_node_and_no_other(
    node_id: str, service: Service
) -> None:
    may = permissions.of_service(service, node_id).publish
    for subject in FACTS:
        own = subject.where(**{t: node_id for t in subject.tokens if t in ("origin", "node_id")})
        says = service.name in subject.says and (node_id == ORIGIN or subject is not JOB_ENDED)
        # Of its own concrete job, to see that wildcards of the permission cover it.
        assert allows(may, own.replace("*", "x")) == says, subject.name
    if service.name == "distributor":
        assert allows(may, PROGRESS.where(node_id=node_id))
        assert not allows(may, f"williw.shard.delivered.{NODE}x.job.1")
        assert not allows(may, f"$KV.williw_nodes.{NODE}x")


def test_a_distributor_ends_its_own_origin_s_jobs_and_a_plain_node_s_none() -> None:
    of = {node_id: permissions.of_service(s, node_id).publish for node_id, s in CASES}
    assert allows(of[ORIGIN], JOB_ENDED.where(origin=ORIGIN).replace("*", "x"))
    assert not allows(of[ORIGIN], JOB_ENDED.where(origin=NODE).replace("*", "x"))
    for origin in (ORIGIN, NODE):
        assert not allows(of[NODE], JOB_ENDED.where(origin=origin).replace("*", "x"))


@pytest.mark.parametrize(("node_id", "service"), CASES, ids=NAMES)
def test_nobody_but_the_operator_may_everything(node_id: str, service: Service) -> None:
    may = permissions.of_service(service, node_id)
    for patterns in (may.publish, may.subscribe):
        assert not {">", "williw.>", "$JS.>", "$JS.API.>", "$KV.>", "*"} & set(patterns)
    foreign = f"$JS.ACK.WILLIW.distributor-node_assigned-{NODE}x.1.1.1.1.1"
    assert not allows(may.publish, foreign)


def test_commands_are_the_clients_and_a_tap_says_nothing() -> None:
    client, tap = permissions.of_client(), permissions.of_tap()
    for command in COMMANDS:
        concrete = command.where().replace("*", "x")
        assert allows(client.publish, concrete)
        assert not allows(tap.publish, concrete)
    for fact in FACTS:
        concrete = fact.where().replace("*", "x")
        assert not allows(client.publish, concrete)
        assert not allows(tap.publish, concrete)
        assert allows(tap.subscribe, concrete)


def test_an_account_keeps_what_it_stores_and_a_leaf_asks_the_hub() -> None:
    user = authorization.User("x", "UKEY", Permissions(("$JS.API.INFO", "a.b"), ("c",)))
    hub = authorization.render([user], {"TAP": user}, "TEAM")
    leaf = authorization.render([user], {"TAP": user}, "TEAM", leaf=True)
    assert "jetstream: enabled" in hub
    assert "jetstream: enabled" not in leaf
    domain = f'"$JS.{authorization.HUB_DOMAIN}.API.INFO"'
    assert domain in leaf
    assert domain not in hub
    assert "TEAM_TAP: {" in hub
