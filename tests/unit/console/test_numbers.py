"""Numbers on the command line, and places that cannot be what they should."""

from pathlib import Path

import pytest

from services.console import app
from services.console.failures import EXIT_BUS, EXIT_FAILED, EXIT_USAGE


@pytest.mark.parametrize("number", ["1.5", "two", "1e3", "", "0x10"])
@pytest.mark.parametrize("option", ["--batch-size", "--sequence-length"])
def test_what_is_no_whole_number_is_not_rounded(
    option: str, number: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert app.run(["profile", "org/name", option, number]) == EXIT_USAGE
    assert "whole number" in capsys.readouterr().err.replace("\n", " ")


def test_a_pin_that_ends_before_it_begins_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["preview", "--metadata", str(tmp_path), "--nodes", str(tmp_path), "--pin", "a:5-2"]
    assert app.run(words) == EXIT_USAGE
    assert "ends before it begins" in capsys.readouterr().err


def test_a_home_that_cannot_be_one_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    assert app.run(["up", "--home", str(tmp_path / "file")]) == EXIT_USAGE
    assert "cannot be a home" in capsys.readouterr().err


def test_a_path_that_the_system_refuses_is_told_without_a_traceback(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert app.run(["up", "--home", str(tmp_path / ("a" * 300))]) == EXIT_FAILED
    assert "aaa: File name too long" in capsys.readouterr().err.replace("\n", "")


@pytest.mark.parametrize("url", ["nats://127.0.0.1:99999999", "nats://127.0.0.1:abc"])
def test_an_address_that_is_none_is_told_without_a_traceback(
    url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert app.run(["jobs", "--nats-url", url]) == EXIT_BUS
    assert "no NATS server answers" in capsys.readouterr().err
