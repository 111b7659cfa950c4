"""Documents and the registry on a real server."""

import anyio
import msgspec
import pytest

from config.settings import Settings
from messages.documents import INLINE_LIMIT_BYTES, Document, digest_of
from messages.failures import Passing
from messages.ids import JobId, NodeId
from services.runtime import documents, provision
from services.runtime.bus import Bus, open_bus
from services.runtime.documents import DocumentDiffers, Documents
from tests.bus_fixture import entry
from tests.integration.runtime.asking import asked_of


@pytest.mark.parametrize("size_bytes", [2, INLINE_LIMIT_BYTES, INLINE_LIMIT_BYTES + 1, 3 << 20])
async def test_a_document_of_any_size_is_read_back_whole(bus: Bus, size_bytes: int) -> None:
    body = b'"' + b"x" * (size_bytes - 2) + b'"'
    document = await bus.documents.put(body, "a.json")
    travelled = msgspec.json.decode(msgspec.json.encode(document), type=Document)
    assert await bus.documents.get(travelled) == body
    assert (travelled.body is None) == (size_bytes > INLINE_LIMIT_BYTES)


async def test_storing_the_same_body_twice_is_one_object(bus: Bus) -> None:
    first = await bus.documents.store(b"{}", "a.json")
    assert await bus.documents.store(b"{}", "a.json") == first
    bucket = await bus.client.jetstream().object_store(first.bucket)
    assert [found.name for found in await bucket.list()] == [first.name]


async def test_documents_that_travel_together_share_what_a_message_holds(bus: Bus) -> None:
    body = b'"' + b"x" * 1000 + b'"'
    alone = await bus.documents.put(body, "a.json")
    crowded = await bus.documents.put(body, "a.json", among=INLINE_LIMIT_BYTES // 1000)
    assert alone.body == body
    assert crowded.body is None
    assert await bus.documents.get(crowded) == body


async def test_a_document_that_would_soon_expire_is_stored_anew(bus: Bus) -> None:
    bucket = await bus.client.jetstream().object_store("williw_documents")

    async def stored_by(documents: Documents) -> str:
        """The name of the chunks, which each storing makes anew."""
        document = await documents.store(b"{}", "a.json")
        assert await documents.get(document) == b"{}"
        return str((await bucket.get_info(document.name)).nuid)

    first = await stored_by(bus.documents)
    assert await stored_by(bus.documents) == first
    assert await stored_by(Documents(bus.client, kept_s=0.0)) != first


async def test_a_document_whose_chunks_are_being_replaced_is_read_again(bus: Bus) -> None:
    document = await bus.documents.store(b'{"x": 1}', "a.json")
    bucket = await bus.client.jetstream().object_store(document.bucket)
    info = await bucket.get_info(document.name)
    chunks = f"$O.{document.bucket}.C.{info.nuid}"
    await bus.client.jetstream().purge_stream(f"OBJ_{document.bucket}", subject=chunks)
    with pytest.raises(Passing, match="is being stored: 0 bytes so far"):
        await bus.documents.get(document)


async def test_an_altered_document_is_refused(bus: Bus) -> None:
    document = await bus.documents.store(b'{"x":1}', "a.json")
    bucket = await bus.client.jetstream().object_store(document.bucket)
    await bucket.put(document.name, b'{"x":2}')
    with pytest.raises(DocumentDiffers):
        await bus.documents.get(document)
    inline = Document(sha256=digest_of(b"1"), size_bytes=1, inline=msgspec.Raw(b"2"))
    with pytest.raises(DocumentDiffers):
        await bus.documents.get(inline)


async def test_a_node_expires_unless_it_is_heard_of_and_reading_keeps_nobody_alive(
    settings: Settings,
) -> None:
    node = msgspec.structs.replace(settings.node, expires_s=1.0)
    quick = msgspec.structs.replace(settings, node=node)
    async with open_bus(quick, "test") as bus:
        await provision.provision_storage(bus, quick)
        await bus.registry.announce(entry("node_a"))
        assert [e.node.node_id for e in await bus.registry.nodes()] == ["node_a"]
        with anyio.fail_after(15):
            while await bus.registry.nodes():  # noqa: ASYNC110  # the server expires it
                await anyio.sleep(0.1)
        await bus.registry.announce(entry("node_a"))
        assert await bus.registry.node(NodeId("node_a")) == entry("node_a")


async def test_a_registry_entry_under_another_nodes_key_is_passed_over(bus: Bus) -> None:
    await bus.registry.announce(entry("node_a"))
    bucket = await bus.client.jetstream().key_value("williw_nodes")
    await bucket.put("node_b", msgspec.json.encode(entry("node_a")))
    await bucket.put("node_c", b"not json")
    assert [e.node.node_id for e in await bus.registry.nodes()] == ["node_a"]
    await bus.registry.withdraw(NodeId("node_a"))
    assert await bus.registry.nodes() == ()


async def test_a_grant_is_made_once_and_each_node_has_its_own(bus: Bus) -> None:
    job = JobId("job-1")
    token = await bus.grants.grant(NodeId("node_a"), job)
    assert await bus.grants.grant(NodeId("node_a"), job) == token
    assert await bus.grants.token(NodeId("node_a"), job) == token
    assert await bus.grants.token(NodeId("node_b"), job) is None
    assert await bus.grants.grant(NodeId("node_b"), job) != token


async def test_a_document_that_was_read_is_read_once(bus: Bus) -> None:
    document = await bus.documents.store(b'{"x": 1}', "a.json")
    chunks = f"$JS.API.DIRECT.GET.OBJ_{document.bucket}"
    async with asked_of(bus, chunks) as questions:
        for _ in range(3):
            assert await bus.documents.get(document) == b'{"x": 1}'
    assert len(questions) == 1


async def test_a_document_that_was_seen_is_looked_for_again_after_a_while(
    bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    document = await bus.documents.store(b"{}", "a.json")
    asked = f"$JS.API.STREAM.MSG.GET.OBJ_{document.bucket}"
    async with asked_of(bus, asked) as questions:
        for _ in range(3):
            assert await bus.documents.store(b"{}", "a.json") == document
        assert len(questions) == 1
        await bus.client.jetstream().delete_object_store(document.bucket)
        await bus.client.jetstream().create_object_store(document.bucket)
        monkeypatch.setattr(documents, "_SEEN_S", 0.0)
        await bus.documents.store(b"{}", "a.json")
    assert await Documents(bus.client).get(document) == b"{}"
