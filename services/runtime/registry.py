"""The registry of live nodes and the grants of a delivery: key-value buckets whose keys expire."""

import re
import secrets

import structlog
from nats.aio.client import Client
from nats.js.errors import APIError, KeyNotFoundError, NotFoundError
from nats.js.kv import KeyValue

from messages.failures import Passing
from messages.ids import JobId, NodeId, is_id
from messages.nodes import NodeEntry
from messages.wire import Undecodable, decode, encode
from services.runtime import incoming, names, stored
from services.runtime.connection import BUS_TROUBLE

log = structlog.get_logger()
_TOKEN_BYTES = 32
_TOKEN = re.compile(rb"[A-Za-z0-9_-]{43}")


class _Bucket:
    """One key-value bucket, opened at first use; what nats-py raises becomes Passing."""

    def __init__(self, client: Client, name: str) -> None:
        self._client = client
        self._js = client.jetstream(timeout=5)
        self._name = name
        self._kv: KeyValue | None = None

    async def _open(self) -> KeyValue:
        if self._kv is None:
            self._kv = await self._js.key_value(self._name)
        return self._kv

    async def items(self) -> dict[str, bytes]:
        """Every key that has a value now, with it: one request for a thousand keys."""
        above = f"$KV.{self._name}."
        found: dict[str, bytes] = {}
        async for message in stored.messages(self._client, f"KV_{self._name}", f"{above}>"):
            # A deletion and an expiry are stored as messages without a value.
            if message.data:
                found[message.headers["Nats-Subject"].removeprefix(above)] = message.data
        return found

    async def get(self, key: str) -> bytes | None:
        """The value; None for a key that is absent, deleted or expired (an entry without value)."""
        try:
            value = (await (await self._open()).get(key)).value
        except (KeyNotFoundError, NotFoundError):
            return None
        except BUS_TROUBLE as error:
            raise Passing(f"bucket {self._name} not read: {type(error).__name__}") from error
        return value or None

    async def by_leader(self, key: str) -> stored.Stored | None:
        """What is stored last under the key, a deletion's marker included, with its own headers."""
        return await stored.newest(self._client, f"KV_{self._name}", f"$KV.{self._name}.{key}")

    async def put(self, key: str, value: bytes) -> None:
        await self._store(key, value, None)

    async def create(self, key: str, value: bytes) -> bool:
        """Whether `value` became the key's first value; a deletion's marker is one, too.

        The library would read what is there, by a direct get.
        """
        return await self._store(key, value, {names.EXPECTED_SEQUENCE: "0"})

    async def _store(self, key: str, value: bytes, headers: dict[str, str] | None) -> bool:
        """Whether the value was stored; false where the key has one and `headers` want none."""
        subject, stream = f"$KV.{self._name}.{key}", f"KV_{self._name}"
        try:
            await self._js.publish(subject, value, headers=headers, stream=stream)
        except APIError as error:
            if error.err_code == names.WRONG_LAST_SEQUENCE:
                return False
            raise Passing(f"bucket {self._name} not written: {error.description}") from error
        except BUS_TROUBLE as error:
            raise Passing(f"bucket {self._name} not written: {type(error).__name__}") from error
        return True

    async def delete(self, key: str) -> None:
        try:
            await (await self._open()).delete(key)
        except BUS_TROUBLE as error:
            raise Passing(f"bucket {self._name} not written: {type(error).__name__}") from error


class Registry:
    """Which nodes live now: each announces itself again and again, and expires when it stops."""

    def __init__(self, client: Client) -> None:
        self._bucket = _Bucket(client, names.NODES_BUCKET)

    async def nodes(self) -> tuple[NodeEntry, ...]:
        """The live nodes by id. Reading keeps nobody alive; an unreadable entry is passed over."""
        found: list[NodeEntry] = []
        for key, body in sorted((await self._bucket.items()).items()):
            if not is_id(key):
                continue
            try:
                entry = decode(body, NodeEntry)
            except Undecodable as error:
                log.warning("passing over a registry entry", node_id=key, error=error.reason)
                continue
            if entry.node.node_id == key:
                found.append(entry)
        return tuple(found)

    async def node(self, node_id: NodeId) -> NodeEntry | None:
        """One live node's entry, or None."""
        found = await self._bucket.by_leader(node_id)
        return decode(found.data, NodeEntry) if found is not None and found.data else None

    async def announce(self, entry: NodeEntry) -> None:
        """Say that this node lives; the entry expires `node.expires_s` after the last time."""
        await self._bucket.put(entry.node.node_id, encode(entry))

    async def withdraw(self, node_id: NodeId) -> None:
        """Say that this node leaves, so that nobody waits for its entry to expire."""
        await self._bucket.delete(node_id)


class Grants:
    """Capability tokens, one for each node and job: never in a fact, a log or an error.

    A key is `<node_id>.<job_id>`, so that permissions can let each node read only its own.
    """

    def __init__(self, client: Client) -> None:
        self._bucket = _Bucket(client, names.GRANTS_BUCKET)

    async def grant(self, node_id: NodeId, job_id: JobId) -> str:
        """The token that `node_id` shows for the bytes of `job_id`: made once, then the same."""
        key = f"{node_id}.{job_id}"
        token = secrets.token_urlsafe(_TOKEN_BYTES)
        if await self._bucket.create(key, token.encode()):
            return token
        found = await self._bucket.by_leader(key)
        known = "" if found is None or incoming.sent_on(found.headers) else _token(found.data)
        return known or await self._renewed(key)

    async def token(self, node_id: NodeId, job_id: JobId) -> str | None:
        """The token granted, or None."""
        value = await self._bucket.get(f"{node_id}.{job_id}")
        return None if value is None else _token(value) or None

    async def _renewed(self, key: str) -> str:
        """Put it anew: the marker of an expired key refuses `create`, and so does what somebody
        had the server publish there before, whose bytes they may know.
        """
        token = secrets.token_urlsafe(_TOKEN_BYTES)
        await self._bucket.put(key, token.encode())
        return token


def _token(value: bytes) -> str:
    """A token of ours; empty where it is anything else."""
    return value.decode() if _TOKEN.fullmatch(value) else ""
