"""The names of what williw keeps on NATS: streams, buckets, durable consumers, headers."""

from typing import Any

from services.runtime.service import Route

FACTS_STREAM = "WILLIW"
FACTS_SUBJECTS = (
    "williw.model.>",
    "williw.metadata.>",
    "williw.split.>",
    "williw.node.>",
    "williw.shards.>",
    "williw.shard.>",
    "williw.job.>",
)
DEAD_STREAM = "WILLIW_DEAD"
DOCUMENTS_BUCKET = "williw_documents"
NODES_BUCKET = "williw_nodes"
GRANTS_BUCKET = "williw_grants"

MSG_ID = "Nats-Msg-Id"
EXPECTED_SEQUENCE = "Nats-Expected-Last-Subject-Sequence"
EXPECTED_SUBJECT = "Nats-Expected-Last-Subject-Sequence-Subject"
TRACE_PARENT = "traceparent"
# What the server adds when it answers a direct get; no publisher writes them.
OF_A_READ = ("Nats-Stream", "Nats-Num-Pending")

WRONG_LAST_SEQUENCE = 10071
MESSAGE_NOT_FOUND = 10037
CONSUMER_NOT_FOUND = 10014
START_CANNOT_CHANGE = 10012


def consumer_name(service: str, route: Route[Any]) -> str:
    """The durable consumer of a route: the same for every copy of the service, so they share it."""
    words = [service, route.subject.name.replace(".", "_")]
    if route.part:
        words.append(route.part)
    words += [route.where[token] for token in route.subject.tokens if token in route.where]
    return "-".join(words)
