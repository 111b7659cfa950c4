"""A node's stages: whole or not there, one link for each model, old ones give way."""

import errno
import os
import shutil
from collections.abc import Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from messages.documents import digest_of
from messages.ids import NodeId, PlanId
from messages.shards import StageFile, StageManifest, StageTensor
from messages.wire import encode
from services.checkpoint.chunks import digest_of_chunk, digests_of_file, name_of_content
from services.checkpoint.stage_header import header_of
from services.distributor.arrival import Arrival
from services.distributor.held import Held, find
from services.distributor.holdings import Holdings
from services.distributor.prune import prune
from services.distributor.store import HeldStage, Store, place_beside

CHUNK = 4096


def stage_file(name: str, body: bytes) -> StageFile:
    chunks = tuple(digest_of_chunk(body[k : k + CHUNK]) for k in range(0, len(body), CHUNK))
    return StageFile(
        name=name,
        size_bytes=len(body),
        digest=name_of_content(len(body), chunks),
        chunk_bytes=CHUNK,
        chunks=chunks,
    )


def manifest_of(plan: str, bodies: dict[str, bytes]) -> StageManifest:
    files = tuple(stage_file(name, body) for name, body in bodies.items())
    return StageManifest(
        plan_id=PlanId(plan),
        model_name="org/m",
        revision="",
        directory="org--m",
        node_id=NodeId("a"),
        stage=0,
        stages=1,
        files=files,
        size_bytes=sum(map(len, bodies.values())),
    )


def finished(store: Store, plan: str, bodies: dict[str, bytes]) -> tuple[str, StageManifest]:
    manifest = manifest_of(plan, bodies)
    body = encode(manifest)
    sha256 = digest_of(body)
    for name, data in bodies.items():
        path = store.arriving(sha256) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    store.finish(sha256, body)
    return sha256, manifest


class Watched(Store):
    """A store that tells which stages were not to be read."""

    def __init__(self, models: Path) -> None:
        super().__init__(models)
        self.left_out: list[set[str]] = []

    def stages(self, known: Collection[str] = ()) -> Iterator[HeldStage]:
        self.left_out.append(set(known))
        return super().stages(known)


def test_a_finished_stage_is_seen_under_the_models_name(tmp_path: Path) -> None:
    store = Store(tmp_path)
    sha256, manifest = finished(store, "p1", {"config.json": b"{}", "1_P/config.json": b"[]"})
    link = tmp_path / "org--m"
    assert link.is_symlink()
    assert (link / "1_P" / "config.json").read_bytes() == b"[]"
    assert store.holds(sha256, manifest)
    (store.place(sha256, manifest) / "config.json").unlink()
    assert not store.holds(sha256, manifest)


def test_a_stage_is_read_once_and_again_only_where_a_file_was_changed(tmp_path: Path) -> None:
    sha256, manifest = finished(Store(tmp_path), "p1", {"config.json": b"{}"})
    store, read = Store(tmp_path), list[int]()
    for _ in range(2):
        assert store.holds(sha256, manifest, read.append)
    assert read == [2]
    file = store.place(sha256, manifest) / "config.json"
    before = file.stat()
    file.write_bytes(b"[]")
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert not store.holds(sha256, manifest, read.append)
    file.write_bytes(b"{}")
    assert store.holds(sha256, manifest, read.append)
    assert read == [2, 2, 2]


def test_a_stage_taken_back_is_not_seen_until_it_is_whole_again(tmp_path: Path) -> None:
    store = Store(tmp_path)
    sha256, manifest = finished(store, "p1", {"config.json": b"{}"})
    assert store.take_back(sha256, manifest)
    assert not (tmp_path / "org--m").exists()
    assert list(store.stages()) == []
    assert (store.arriving(sha256) / "config.json").read_bytes() == b"{}"
    assert not store.take_back(sha256, manifest)
    store.finish(sha256, encode(manifest))
    assert store.holds(sha256, manifest)
    assert (tmp_path / "org--m" / "config.json").read_bytes() == b"{}"


def test_what_a_stage_replaces_makes_way_by_a_rename_and_is_removed(tmp_path: Path) -> None:
    bodies = {"config.json": b"{}"}
    sha256, manifest = finished(Store(tmp_path), "p1", bodies)
    store = Store(tmp_path)
    (store.place(sha256, manifest) / "config.json").write_bytes(b"[]")
    finished(store, "p1", bodies)
    assert store.holds(sha256, manifest)
    aside = tmp_path / ".stages" / ".replaced"
    assert list(aside.iterdir()) == []
    (aside / sha256).mkdir()  # as a crash leaves it
    store.sweep()
    assert not aside.exists()


def test_a_new_stage_takes_the_name_and_the_old_one_stays_until_it_is_pruned(
    tmp_path: Path,
) -> None:
    store = Store(tmp_path)
    finished(store, "p1", {"config.json": b"1"})
    finished(store, "p2", {"config.json": b"22"})
    assert (tmp_path / "org--m" / "config.json").read_bytes() == b"22"
    assert len(list(store.stages())) == 2
    (pruned,) = prune(tmp_path)
    assert pruned.size_bytes == 1
    assert (tmp_path / "org--m" / "config.json").read_bytes() == b"22"
    assert prune(tmp_path) == ()


def test_a_stage_is_found_by_its_digest_whichever_the_link_shows(tmp_path: Path) -> None:
    store = Store(tmp_path)
    stages = [finished(store, f"p{k}", {"config.json": b"1" * k}) for k in (1, 2)]
    for sha256, manifest in stages:
        place = place_beside(tmp_path / "org--m", sha256)
        assert place == store.place(sha256, manifest)
        assert (place / "config.json").stat().st_size == manifest.size_bytes


def test_a_link_that_points_at_the_stage_already_is_left_and_any_other_is_put_right(
    tmp_path: Path,
) -> None:
    store, link = Store(tmp_path), tmp_path / "org--m"
    stage, other = (finished(store, f"p{k}", {"config.json": b"1" * k}) for k in (2, 1))
    store.use(*stage)
    made, manifest = link.lstat().st_ino, tmp_path / ".stages" / ".manifests" / f"{stage[0]}.json"
    os.utime(manifest, (1.0, 1.0))
    assert store.use(*stage) == link
    assert link.lstat().st_ino == made
    assert manifest.stat().st_mtime > 1.0
    for change in (link.unlink, lambda: store.use(*other)):
        change()
        store.use(*stage)
        assert link.resolve() == store.place(*stage)


def test_what_is_held_is_read_once_and_what_went_is_found_again_when_it_is_back(
    tmp_path: Path,
) -> None:
    store = Watched(tmp_path)
    holdings = Holdings(store, None)
    stages = [finished(store, f"p{k}", {"config.json": b"1" * k}) for k in (1, 2)]
    (one,), (two,) = ([file.digest for file in manifest.files] for _, manifest in stages)
    holdings.read()
    holdings.read()
    assert store.left_out == [set(), {sha256 for sha256, _ in stages}]
    shutil.rmtree(store.place(*stages[0]))
    assert holdings.find(one) is None
    finished(store, "p1", {"config.json": b"1"})
    holdings.read()
    assert holdings.find(one) is not None
    assert holdings.find(two) is not None


def test_two_stages_of_a_model_become_visible_at_once(tmp_path: Path) -> None:
    store = Store(tmp_path)
    stages = [finished(store, f"p{k}", {"config.json": b"1" * k}) for k in (1, 2)]
    with ThreadPoolExecutor(2) as pool:
        done = [pool.submit(store.use, *stages[k % 2]) for k in range(200)]
        assert {one.result() for one in done} == {tmp_path / "org--m"}
    assert (tmp_path / "org--m").resolve() in {store.place(*stage) for stage in stages}


def test_the_least_recently_used_gives_way_first_and_only_as_much_as_must(tmp_path: Path) -> None:
    store = Store(tmp_path)
    shas = [finished(store, f"p{k}", {"config.json": b"x" * 100})[0] for k in range(4)]
    for age, sha256 in zip((50, 300, 200, 0), shas, strict=True):
        os.utime(tmp_path / ".stages" / ".manifests" / f"{sha256}.json", (1e9 - age, 1e9 - age))
    prune(tmp_path, 300)
    assert {stage.sha256 for stage in store.stages()} == {shas[0], shas[2], shas[3]}
    prune(tmp_path, 100, keep=[shas[2]])
    assert {stage.sha256 for stage in store.stages()} == {shas[2], shas[3]}


def test_a_directory_of_the_users_own_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "org--m").mkdir()
    with pytest.raises(FileExistsError, match="williw did not make"):
        finished(Store(tmp_path), "p1", {"config.json": b"{}"})


def test_a_sweep_leaves_what_is_whole_and_takes_what_has_no_manifest(tmp_path: Path) -> None:
    store = Store(tmp_path)
    sha256, manifest = finished(store, "p1", {"config.json": b"{}"})
    orphan = tmp_path / ".stages" / "org--m@0000000000000000"
    orphan.mkdir()
    store.sweep()
    assert not orphan.exists()
    assert store.holds(sha256, manifest)


def test_an_arrival_goes_on_from_the_chunks_that_have_their_digest(tmp_path: Path) -> None:
    body = os.urandom(10 * CHUNK + 7)
    manifest = manifest_of("p1", {"a.bin": body, "empty.json": b""})
    directory = tmp_path / "arriving"
    directory.mkdir()
    damaged = bytearray(body)
    damaged[3 * CHUNK] ^= 1
    (directory / "a.bin").write_bytes(damaged[: 6 * CHUNK])
    arrival = Arrival(manifest, directory, tmp_path / "final")
    arrival.open()
    found: list[int] = []
    arrival.resume(memoryview(bytearray(CHUNK)), lambda _file, index: found.append(index))
    arrival.close()
    assert found == [0, 1, 2, 4, 5]
    assert (directory / "a.bin").stat().st_size == len(body)
    assert (directory / "empty.json").exists()


def test_a_chunk_that_the_disk_cannot_read_is_one_that_is_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = os.urandom(3 * CHUNK)
    arrival = Arrival(manifest_of("p1", {"a.bin": body}), tmp_path / "arriving", tmp_path / "final")
    read = Arrival.read

    def failing(self: Arrival, file: StageFile, index: int, view: memoryview) -> memoryview:
        if index == 1:
            raise OSError(errno.EIO, "Input/output error")
        return read(self, file, index, view)

    arrival.directory.mkdir()
    (arrival.directory / "a.bin").write_bytes(body)
    arrival.open()
    monkeypatch.setattr(Arrival, "read", failing)
    found: list[int] = []
    arrival.resume(memoryview(bytearray(CHUNK)), lambda _file, index: found.append(index))
    arrival.close()
    assert found == [0, 2]


def test_equal_tensors_elsewhere_are_put_together_and_different_ones_are_not(
    tmp_path: Path,
) -> None:
    first, second = os.urandom(3 * CHUNK), os.urandom(2 * CHUNK)
    old = _weights(tmp_path / "old", [("a", first), ("b", os.urandom(2 * CHUNK))])
    new = _weights(tmp_path / "new", [("b", second), ("a", first)])
    held = Held()
    held.add(_only(old), tmp_path / "old")
    view = memoryview(bytearray(CHUNK))
    found = {k: bytes(data) for k, data in find(new, range(len(new.chunks)), held, view)}
    body = (tmp_path / "new" / new.name).read_bytes()
    assert all(body[k * CHUNK : (k + 1) * CHUNK] == data for k, data in found.items())
    assert len(found) >= 2
    assert len(found) < len(new.chunks)


def _weights(directory: Path, tensors: list[tuple[str, bytes]]) -> StageFile:
    directory.mkdir()
    start, places = 512, []
    for name, data in tensors:
        places.append(
            StageTensor(
                name=name,
                dtype="U8",
                shape=(len(data),),
                start=start,
                size_bytes=len(data),
                source="s.safetensors",
                source_start=0,
            )
        )
        start += len(data)
    file = StageFile(
        name="model-00001-of-00001.safetensors",
        size_bytes=start,
        digest="0" * 64,
        chunk_bytes=CHUNK,
        chunks=(),
        data_start=512,
        tensors=tuple(places),
    )
    path = directory / file.name
    path.write_bytes(header_of(file) + b"".join(data for _, data in tensors))
    chunks = digests_of_file(path, CHUNK)
    return StageFile(
        name=file.name,
        size_bytes=start,
        digest=name_of_content(start, chunks),
        chunk_bytes=CHUNK,
        chunks=chunks,
        data_start=512,
        tensors=tuple(places),
    )


def _only(file: StageFile) -> StageManifest:
    return StageManifest(
        plan_id=PlanId("p"),
        model_name="org/m",
        revision="",
        directory="org--m",
        node_id=NodeId("a"),
        stage=0,
        stages=1,
        files=(file,),
        size_bytes=file.size_bytes,
    )
