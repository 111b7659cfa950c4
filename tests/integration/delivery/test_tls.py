"""Between nodes with certificates of one authority; whoever shows none hears nothing."""

import shutil
import socket
import ssl
import subprocess
from contextlib import ExitStack
from pathlib import Path

import aiohttp
import anyio
import anyio.to_thread
import pytest

from messages.ids import NodeId
from messages.jobs import JobCompleted
from messages.shards import StageFile
from services.checkpoint.stage import verify
from services.distributor.failures import Distrusted
from services.distributor.service import tls_contexts
from services.distributor.transfer import Link, Source
from tests.integration.delivery.rig import ORIGIN, Rig, Topology, parts, plan_of, sources_of

pytestmark = pytest.mark.skipif(
    shutil.which("openssl") is None, reason="openssl, which makes the certificates, is not here"
)
NODES = (ORIGIN, NodeId("b"), NodeId("c"))
_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")


def openssl(*arguments: str, cwd: Path) -> None:
    subprocess.run(["openssl", *arguments], cwd=cwd, check=True, capture_output=True)


def authority(folder: Path) -> Path:
    """A certificate authority in `folder`; the path of its certificate."""
    folder.mkdir()
    out = ("-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=an authority", "-days", "2")
    openssl("req", "-x509", *_KEY, *out, cwd=folder)
    return folder / "ca.pem"


def certified(ca: Path, name: str) -> dict[str, object]:
    """The settings of a node whose certificate, by this authority, names 127.0.0.1."""
    folder = ca.parent
    request = ("-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", f"/CN={name}")
    openssl("req", "-new", *_KEY, *request, cwd=folder)
    (folder / "names").write_text("subjectAltName=IP:127.0.0.1\nbasicConstraints=CA:FALSE\n")
    by = ("-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-extfile", "names")
    signed = ("-in", f"{name}.csr", "-out", f"{name}.pem", "-days", "2")
    openssl("x509", "-req", *signed, *by, cwd=folder)
    return {
        "tls_ca_file": str(ca),
        "tls_cert_file": str(folder / f"{name}.pem"),
        "tls_key_file": str(folder / f"{name}.key"),
    }


@pytest.fixture
def ca(rig: Rig, tmp_path: Path) -> Path:
    """An authority that certified every node of the rig."""
    made = authority(tmp_path / "ca")
    for node in NODES:
        rig.options[node] = certified(made, node)
    return made


async def url_of(rig: Rig, node_id: str) -> str:
    """Where a node serves, once it said so."""
    with anyio.fail_after(10):
        while True:
            entry = await rig.bus.registry.node(NodeId(node_id))
            if entry is not None:
                return entry.data_url
            await anyio.sleep(0.05)


async def status(url: str, tls: ssl.SSLContext) -> int:
    """The status of an answer to somebody without a token."""
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"{url}/v1/files/{'0' * 64}", ssl=tls) as answer,
    ):
        return answer.status


@pytest.mark.usefixtures("ca")
@pytest.mark.parametrize("topology", ["chain", "mixed"])
async def test_stages_arrive_over_https(rig: Rig, topology: Topology) -> None:
    async with rig.nodes(*NODES):
        assert (await url_of(rig, "b")).startswith("https://")
        await rig.plan(plan_of(NODES, parts(6, NODES), topology=topology))
        ended = await rig.ending()
    assert isinstance(ended, JobCompleted), ended
    report = verify([Path(one.stage_dir) for one in ended.nodes], rig.model)
    assert report.ok, report.problems
    for fact in (await rig.delivered()).values():
        assert sum(sources_of(fact).values()) == fact.size_bytes
        assert not fact.distrusted


async def test_a_reader_without_a_certificate_of_the_authority_is_refused(
    rig: Rig, ca: Path, tmp_path: Path
) -> None:
    async with rig.nodes("b"):
        url = await url_of(rig, "b")
        reader = ssl.create_default_context(cafile=str(ca))
        with pytest.raises(aiohttp.ClientError):
            await status(url, reader)
        foreign = certified(authority(tmp_path / "foreign"), "stranger")
        reader.load_cert_chain(str(foreign["tls_cert_file"]), str(foreign["tls_key_file"]))
        with pytest.raises(aiohttp.ClientError):
            await status(url, reader)
        own = rig.options["c"]
        known = ssl.create_default_context(cafile=str(ca))
        known.load_cert_chain(str(own["tls_cert_file"]), str(own["tls_key_file"]))
        assert await status(url, known) == 403


async def test_who_never_shakes_hands_keeps_no_node_out(rig: Rig, ca: Path) -> None:
    rig.options["b"]["max_connections"] = 4
    own = rig.options["c"]
    tls = ssl.create_default_context(cafile=str(ca))
    tls.load_cert_chain(str(own["tls_cert_file"]), str(own["tls_key_file"]))
    async with rig.nodes("b"):
        url = await url_of(rig, "b")
        with ExitStack() as strangers:
            for _ in range(12):
                port = int(url.rpartition(":")[2])
                strangers.enter_context(socket.create_connection(("127.0.0.1", port)))
            with anyio.fail_after(5):
                assert await status(url, tls) == 403


@pytest.mark.usefixtures("ca")
async def test_a_server_of_another_authority_is_told_nothing(rig: Rig, tmp_path: Path) -> None:
    rig.options["b"] = certified(authority(tmp_path / "foreign"), "b")
    _, tls = tls_contexts(rig.node("c").distributor)
    size, chunks = 1, ("0" * 64,)
    file = StageFile(
        name="f", size_bytes=size, digest="0" * 64, chunk_bytes=size, chunks=chunks, tensors=()
    )
    async with rig.nodes("b"):
        source = Source("b", await url_of(rig, "b"), rig.job_id, NodeId("c"), "secret", tls)
        link, buffer = Link(source), memoryview(bytearray(size))
        with pytest.raises(Distrusted, match="CERTIFICATE_VERIFY_FAILED"):
            await anyio.to_thread.run_sync(link.fetch, file, 0, 1, buffer, print)
