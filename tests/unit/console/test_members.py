"""Lists of members: ids and machines' names, each member once."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.console import members
from services.console.failures import Usage
from services.console.members import Members

NAMES = st.lists(st.from_regex(r"[a-z][a-z0-9]{0,3}([._-][a-z0-9]{1,3})?", fullmatch=True))


@given(NAMES, NAMES, NAMES, NAMES)
def test_each_member_is_there_once_whatever_it_was_called(
    origins: list[str], nodes: list[str], more_origins: list[str], more_nodes: list[str]
) -> None:
    found = members.joined(
        Members(origins=tuple(origins), nodes=tuple(nodes)),
        Members(origins=tuple(more_origins), nodes=tuple(more_nodes)),
    )
    ids = [*found.origin_ids, *found.node_ids]
    assert len(ids) == len(set(ids))
    assert set(ids) == {members.id_of(n) for n in (*origins, *nodes, *more_origins, *more_nodes)}
    assert set(found.origin_ids) == {members.id_of(name) for name in (*origins, *more_origins)}
    assert members.joined(found, found) == found


def test_a_machines_name_outlives_the_id_that_came_of_it() -> None:
    named, bare = Members(nodes=("gpu-1.example.com",)), Members(nodes=("gpu-1_example_com",))
    assert members.joined(named, bare) == named
    assert members.joined(bare, named) == named
    assert named.node_ids == ("gpu-1_example_com",)


def test_members_of_two_accounts_are_not_one_house() -> None:
    unnamed, ours = Members(nodes=("a",)), Members(account="OURS", nodes=("b",))
    assert members.joined(unnamed, ours, ours) == Members(account="OURS", nodes=("a", "b"))
    with pytest.raises(Usage, match="of account OURS, and THEIRS is another"):
        members.joined(ours, unnamed, Members(account="THEIRS"))


@pytest.mark.parametrize("name", ["", "../up", "a b", ".a", "a.", "a/b", "a\n", "x." * 120 + "x"])
def test_a_text_that_names_nobody_is_refused(name: str) -> None:
    with pytest.raises(Usage):
        members.id_of(name)


def test_what_was_written_is_read_again(tmp_path: Path) -> None:
    everyone = Members(account="TEAM_B", origins=("o-1",), nodes=("gpu-1.example.com", "n_2"))
    members.write(tmp_path / members.FILE, everyone)
    assert members.read(tmp_path / members.FILE) == everyone


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        '{"nodes": [1]}',
        '{"node": ["a"]}',
        '{"nodes": ["../a"]}',
        '{"nodes": ["a.b", "a_b"]}',
        '{"account": "WILLIW_TAP"}',
    ],
)
def test_a_file_that_is_no_list_of_members_is_refused(tmp_path: Path, text: str) -> None:
    file = tmp_path / members.FILE
    file.write_text(text)
    with pytest.raises(Usage):
        members.read(file)
    with pytest.raises(Usage, match="No such file"):
        members.read(tmp_path / "absent")
