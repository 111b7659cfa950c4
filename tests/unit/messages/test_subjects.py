"""The table of subjects: one idea, three spellings, and tokens that cannot escape."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from messages import subjects
from messages.ids import JobId, NodeId
from messages.jobs import JobCancelled, JobFailed, ModelRequest, ModelRequested
from messages.subjects import (
    COMMANDS,
    FACTS,
    JOB_ENDED,
    MODEL_REQUESTED,
    Subject,
    fact_subject,
    subject_matching,
)


def test_one_idea_has_three_spellings() -> None:
    for name, value in vars(subjects).items():
        if not isinstance(value, Subject):
            continue
        assert name.lower().replace("_", ".") == value.name or name == "PROGRESS"
        if len(value.types) == 1 and value in FACTS:
            words = re.findall(r"[A-Z][a-z]+", value.types[0].__name__)
            assert ".".join(words).lower() == value.name


def test_no_two_subjects_overlap() -> None:
    known = [*FACTS, *COMMANDS]
    for one in known:
        for other in known:
            filled = re.sub(r"\{\w+\}", "x1", one.pattern)
            assert other.matches(filled) == (one is other)


def test_a_fact_knows_its_subject_and_the_subject_its_fact() -> None:
    fact = JobFailed(origin=NodeId("o"), job_id=JobId("j"), generation=3, stage="split", reason="r")
    assert fact_subject(fact) is JOB_ENDED
    assert JOB_ENDED.of(fact) == "williw.job.ended.o.j.3"
    assert JOB_ENDED.once(fact) == "williw.job.ended.o.j.3"
    assert subject_matching("williw.job.ended.o.j.3") is JOB_ENDED
    assert subject_matching("williw.job.ended.o.j.3.x") is None
    assert subject_matching("williw.job.unheard.o.j.3") is None


def test_a_request_is_accepted_once_over_all_origins() -> None:
    fact = ModelRequested(
        origin=NodeId("o"), job_id=JobId("j"), request=ModelRequest(model_name="m")
    )
    assert MODEL_REQUESTED.once(fact) == "williw.model.requested.*.j.1"


def test_a_filter_leaves_open_what_is_not_given() -> None:
    assert JOB_ENDED.where(job_id="j") == "williw.job.ended.*.j.*"
    with pytest.raises(ValueError, match="no token node_id"):
        JOB_ENDED.where(node_id="n")


@given(st.text(max_size=80))
def test_no_text_makes_a_subject_of_another_shape(text: str) -> None:
    fact = JobCancelled(origin=NodeId(text), job_id=JobId("j"))
    try:
        subject = JOB_ENDED.of(fact)
    except ValueError:
        return
    assert subject == f"williw.job.ended.{text}.j.1"
    assert JOB_ENDED.matches(subject)


def test_a_fact_whose_id_is_a_wildcard_has_no_subject() -> None:
    with pytest.raises(ValueError, match="cannot be a token"):
        JOB_ENDED.of(JobCancelled(origin=NodeId("*"), job_id=JobId("j")))
