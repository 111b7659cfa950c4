"""The origin's model directories: claimed by one, published whole, forgotten parts swept."""

import os
from pathlib import Path

import anyio
import pytest

from services.downloader.shelf import FORGOTTEN_S, Shelf
from services.hub.failures import NotEnoughDisk


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    return Shelf(tmp_path / "models")


async def test_a_place_is_claimed_by_one_at_a_time(shelf: Shelf) -> None:
    place = shelf.place("org/name", "c0ffee")
    order = []

    async def second() -> None:
        async with shelf.claimed(place):
            order.append("second")

    async with anyio.create_task_group() as group, shelf.claimed(place):
        group.start_soon(second)
        with anyio.move_on_after(0.3):
            await anyio.Event().wait()
        order.append("first")
    assert order == ["first", "second"]


async def test_what_is_published_appears_whole_under_its_own_name(shelf: Shelf) -> None:
    place = shelf.place("org/name", "c0ffee")
    async with shelf.claimed(place) as making:
        (making / "1_Pooling").mkdir()
        (making / "1_Pooling" / "config.json").write_text("{}")
        assert not place.exists()
        shelf.publish(making, place)
    assert (place / "1_Pooling" / "config.json").read_text() == "{}"
    assert not making.exists()


async def test_who_waited_gets_a_directory_of_his_own_after_the_first_was_published(
    shelf: Shelf,
) -> None:
    place = shelf.place("org/name", "c0ffee")
    async with shelf.claimed(place) as making:
        shelf.publish(making, place)
    async with shelf.claimed(place) as again:
        assert again.is_dir()
        assert place.is_dir()


def test_the_names_of_two_revisions_and_of_a_converted_model_differ(shelf: Shelf) -> None:
    places = {
        shelf.place("org/name", "a" * 40),
        shelf.place("org/name", "b" * 40),
        shelf.place("org/name", "a" * 40, converted=True),
        shelf.place("/data/name", "local-" + "a" * 40),
        shelf.place("gpt2", "a" * 40),
    }
    assert len(places) == 5
    assert all(place.parent == shelf.root for place in places)


async def test_what_is_there_already_counts_towards_the_space(shelf: Shelf) -> None:
    async with shelf.claimed(shelf.place("org/name", "c0ffee")) as making:
        (making / "model.safetensors.part").write_bytes(bytes(1000))
        free = shelf.no_space("org/name", making, 0, 0).free_bytes
        shelf.check_space("org/name", making, 1000, 1 << 60)
        with pytest.raises(NotEnoughDisk) as refused:
            shelf.check_space("org/name", making, 1001 + free * 2, 0)
        assert refused.value.needed_bytes == 1 + free * 2
        assert str(refused.value.needed_bytes) in refused.value.reason


async def test_only_parts_that_are_forgotten_and_not_in_work_are_swept(shelf: Shelf) -> None:
    old, busy, new = (shelf.place("org/name", revision) for revision in ("old", "busy", "new"))
    for place in (old, busy, new):
        async with shelf.claimed(place) as making:
            (making / "model.safetensors.part").write_bytes(b"x")
    for place in (old, busy):
        for path in (shelf.partial / place.name, *(shelf.partial / place.name).iterdir()):
            os.utime(path, (1, 1))
    async with shelf.claimed(busy):
        assert shelf.sweep() == [old.name]
    assert shelf.sweep(now_s=0) == []
    later = (shelf.partial / new.name).stat().st_mtime + FORGOTTEN_S + 1
    assert sorted(shelf.sweep(later)) == sorted([busy.name, new.name])
