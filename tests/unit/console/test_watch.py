"""What a viewer of a job is told, from its facts alone."""

import json

import msgspec
import pytest

from messages.base import Fact
from messages.ids import JobId, NodeId, PlanId, Sha256
from messages.jobs import JobCompleted, JobFailed, ModelRequest, ModelRequested
from messages.models import ModelDownloaded
from messages.progress import Progress
from messages.shards import ReceivedBytes, ShardDelivered, ShardFailed
from messages.state import Said
from services.checkpoint.stage import VerifyReport
from services.console.failures import BusMissing, Usage, exit_code_of, first_known, tell
from services.console.output import size
from services.console.result import final_object, show_end
from services.console.telling import as_object, progress_sentence, sentence
from services.console.watch import Watch, share_done, stage_seconds

_JOB, _ORIGIN = JobId("j"), NodeId("n1")
_REQUEST = ModelRequest(model_name="org/name")


def _said(sequence: int, fact: Fact) -> Said[Fact]:
    return Said(fact=fact, sequence=sequence, at=float(100 + sequence))


def _requested(generation: int = 1) -> ModelRequested:
    return ModelRequested(origin=_ORIGIN, job_id=_JOB, generation=generation, request=_REQUEST)


def _delivered() -> ShardDelivered:
    return ShardDelivered(
        origin=_ORIGIN,
        job_id=_JOB,
        node_id=NodeId("n2"),
        plan_id=PlanId("p"),
        stage=0,
        stage_dir="/m/org--name",
        stage_sha256=Sha256("0" * 64),
        size_bytes=30,
        shard_size_mb=0.1,
        total_params=7,
        received=(
            ReceivedBytes(source="n1", size_bytes=10),
            ReceivedBytes(source="n1", size_bytes=15),
            ReceivedBytes(source="held", size_bytes=5),
        ),
    )


def _watched(*facts: Fact) -> Watch:
    watch = Watch(_JOB)
    for sequence, fact in enumerate(facts):
        watch.learn(_said(sequence, fact))
    return watch


def test_the_last_line_of_a_job_tells_its_end_its_nodes_and_its_stages() -> None:
    ended = JobCompleted(origin=_ORIGIN, job_id=_JOB, plan_id=PlanId("p"))
    downloaded = ModelDownloaded(
        origin=_ORIGIN,
        job_id=_JOB,
        request=_REQUEST,
        revision="r",
        model_path="/m",
        files_downloaded=("a",),
        total_size_bytes=1,
        total_size_mb=0.1,
    )
    watch = _watched(_requested(), downloaded, _delivered(), ended)
    told = json.loads(msgspec.json.encode(final_object(watch, None, None)))
    assert (told["type"], told["job_id"], told["at"]) == ("JobCompleted", "j", 103.0)
    assert told["stages"] == {"download": 1.0}
    assert told["nodes"][0]["node_id"] == "n2"
    assert told["nodes"][0]["bytes"] == 30
    assert told["nodes"][0]["from"] == {"n1": 25, "held": 5}
    assert watch.completed


def test_the_node_whose_stage_is_bad_is_named_and_what_to_do_is_said(
    capsys: pytest.CaptureFixture[str],
) -> None:
    ended = JobCompleted(origin=_ORIGIN, job_id=_JOB, plan_id=PlanId("p"))
    other = msgspec.structs.replace(_delivered(), node_id=NodeId("n3"), stage_dir="/o/org--name")
    watch = _watched(_requested(), _delivered(), other, ended)
    report = VerifyReport(
        ok=False,
        stages=(),
        coverage="whole",
        compared=False,
        problems=("config.json differs",),
        bad=("/o/org--name",),
    )
    show_end(watch, report)
    told = capsys.readouterr().out
    assert told.count("  verified") == 1
    assert told.count("  NOT verified") == 1
    assert "NOT verified: n3 changed on the disk" in told
    assert "the same command again fetches" in told


def test_a_job_tried_again_is_told_by_its_newest_generation() -> None:
    failed = JobFailed(origin=_ORIGIN, job_id=_JOB, stage="plan", reason="no", advice="add one")
    before = _watched(_requested(), _delivered(), failed)
    assert (before.ended, before.completed) == (True, False)
    after = _watched(_requested(), _delivered(), failed, _requested(generation=2))
    assert not after.ended
    assert after.deliveries() == ()
    assert after.ending() is None


def test_a_fact_is_told_with_its_kind_its_job_and_its_time_first() -> None:
    told = as_object(_said(5, _requested()))
    assert list(told)[:3] == ["type", "job_id", "at"]
    assert (told["type"], told["at"]) == ("ModelRequested", 105.0)


def test_every_fact_has_a_sentence_and_a_failure_says_what_to_do() -> None:
    failed = JobFailed(origin=_ORIGIN, job_id=_JOB, stage="plan", reason="no", advice="add one")
    assert sentence(failed) == "failed      at plan: no (add one)"
    assert "n2" in sentence(_delivered())
    told = ShardFailed(
        origin=_ORIGIN, job_id=_JOB, node_id=NodeId("n2"), stage="distributor", reason="full"
    )
    assert sentence(told) == "undelivered n2: full"
    assert "org/name" in sentence(_requested())


def test_progress_is_a_share_and_never_more_than_all() -> None:
    def at(done: float, total: float) -> Progress:
        return Progress(stage="downloader", node_id=_ORIGIN, job_id=_JOB, done=done, total=total)

    assert share_done(at(5, 10)) == 0.5
    assert share_done(at(11, 10)) == 1.0
    assert share_done(at(0, 0)) == 0.0
    assert progress_sentence(at(5e6, 1e7)) == "download    n1:  50%  5.0 MB of 10.0 MB"


def test_stage_seconds_are_between_the_statuses_that_were_reached() -> None:
    assert stage_seconds({"requested": 1.0, "downloaded": 3.5, "profiled": 3.0}) == {
        "download": 2.5,
        "profile": 0.0,
    }


@pytest.mark.parametrize(
    ("error", "code"), [(Usage("x"), 2), (BusMissing("x"), 3), (ValueError("x"), 1)]
)
def test_errors_have_exit_codes(error: Exception, code: int) -> None:
    assert exit_code_of(error) == code


def test_an_error_is_told_with_its_advice_and_without_secrets(
    capsys: pytest.CaptureFixture[str],
) -> None:
    tell(Usage("no hf_abcdefghijklmnop", advice="try again"))
    assert capsys.readouterr().err == "error: no ***\n  try again\n"


def test_the_error_for_people_is_found_within_groups() -> None:
    inner = Usage("x")
    assert first_known(ExceptionGroup("g", [ValueError(), ExceptionGroup("h", [inner])])) is inner
    assert first_known(ExceptionGroup("g", [ValueError()])) is None


def test_sizes_are_for_people() -> None:
    assert [size(n) for n in (0, 999, 1000, 91_600_000, 2e12)] == [
        "0 B",
        "999 B",
        "1.0 kB",
        "91.6 MB",
        "2.0 TB",
    ]
