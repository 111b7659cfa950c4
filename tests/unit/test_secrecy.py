"""The search for secrets in the output of tests finds what is there."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.secrecy import SECRET

REPOSITORY = Path(__file__).parents[2]
TOKEN = "hf_" + "x" * 20
PRINTING = f"""
def test_says_it():
    print("{TOKEN}")
def test_logs_it(tmp_path):
    (tmp_path / "service.log").write_text("a b {TOKEN}")
def test_keeps_it():
    assert "{TOKEN}"
"""


@pytest.mark.parametrize(
    "secret", [TOKEN, f"Bearer {'a' * 12}", "SU" + "A" * 50, "sentinel-of-the-hub-4711"]
)
def test_every_kind_of_secret_is_known(secret: str) -> None:
    assert SECRET.search(f"Authorization: {secret}\n")
    assert not SECRET.search("hf_hub_download(HF_TOKEN, 'Bearer of news', SUBJECT, sentinel)")


def test_a_test_that_says_a_secret_fails_and_one_that_keeps_it_does_not(tmp_path: Path) -> None:
    (tmp_path / "test_them.py").write_text(PRINTING)
    command = [sys.executable, "-m", "pytest", "-p", "tests.secrecy", "-q", "test_them.py"]
    environ = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(
        command, cwd=tmp_path, env=environ, capture_output=True, text=True, check=False
    )
    assert "3 passed, 2 errors" in done.stdout, done.stdout
    assert "a secret was left in: Captured stdout call" in done.stdout
    assert "a secret was left in: service.log" in done.stdout
