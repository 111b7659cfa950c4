"""What every test printed, logged or left in a log file is searched for secrets when it ends."""

import re
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import pytest

# Tokens of the Hub, also those that tests make up, what is shown to a node, seeds of keys, and the
# sentinels of the tests whose secrets no pattern knows.
SECRET = re.compile(
    r"\bhf_[A-Za-z0-9]{8,}|\bBearer\s+\S{8,}|\bS[UAO][A-Z2-7]{40,}|\bsentinel-[a-z-]+-\d+"
)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A test fails in its teardown where a secret stands in its output."""
    report = yield
    if report.when == "teardown" and report.passed:
        places = sorted(set(_holding(item, report)))
        if places:
            report.outcome = "failed"
            report.longrepr = f"a secret was left in: {', '.join(places)}"
    return report


def _holding(item: pytest.Item, report: pytest.TestReport) -> Iterator[str]:
    for where, text in report.sections:
        if SECRET.search(text):
            yield where
    folder: Any = getattr(item, "funcargs", {}).get("tmp_path")
    for file in Path(folder).rglob("*.log") if folder else ():
        if file.is_file() and SECRET.search(file.read_text(errors="replace")):
            yield str(file.relative_to(folder))
