"""What a viewer knows of one job, and the figures shown of it. Pure."""

from collections.abc import Mapping

from messages.base import Fact
from messages.ids import JobId
from messages.jobs import JobCancelled, JobCompleted, JobFailed
from messages.models import ModelDownloaded
from messages.progress import Progress
from messages.shards import ShardDelivered
from messages.state import JobState, Said, apply

# Each stage with the status that begins it and the one that ends it.
STAGES = (
    ("request", "", "requested"),
    ("download", "requested", "downloaded"),
    ("profile", "downloaded", "profiled"),
    ("upload", "profiled", "ready"),
    ("plan", "ready", "planned"),
    ("cut", "planned", "cut"),
    ("deliver", "cut", "completed"),
)
_STAGE_OF_SERVICE = {
    "requester": "request",
    "downloader": "download",
    "profiler": "profile",
    "uploader": "upload",
    "planner": "plan",
    "splitter": "cut",
    "distributor": "deliver",
}


class Watch:
    """A job's state and facts, and its newest progress by stage and node."""

    def __init__(self, job_id: JobId) -> None:
        self.job_id = job_id
        self.state: JobState | None = None
        self.said: list[Said[Fact]] = []
        self.progress: dict[tuple[str, str], Progress] = {}

    @property
    def ended(self) -> bool:
        """Whether the job has had its one ending."""
        return self.state is not None and self.state.ended

    @property
    def generation(self) -> int:
        """The newest generation heard of; 0 before the first fact."""
        return self.state.generation if self.state else 0

    @property
    def completed(self) -> bool:
        """Whether the job ended with its result."""
        return self.state is not None and self.state.status == "completed"

    def learn(self, said: Said[Fact]) -> None:
        """Take in a fact."""
        self.said.append(said)
        self.state = apply(self.state, said)

    def hear(self, progress: Progress) -> None:
        """Take in progress."""
        self.progress[stage_of(progress.stage), progress.node_id] = progress

    def ending(self) -> Said[Fact] | None:
        """The fact that ended the newest generation, if one did."""
        ends = (JobCompleted, JobFailed, JobCancelled)
        return next((one for one in self._newest() if isinstance(one.fact, ends)), None)

    def deliveries(self) -> tuple[ShardDelivered, ...]:
        """What each node said of its part, by node."""
        found = (one.fact for one in self._newest() if isinstance(one.fact, ShardDelivered))
        return tuple(sorted(found, key=lambda fact: fact.node_id))

    def model_path(self) -> str:
        """Where the origin has the model; empty until it is downloaded."""
        found = (one.fact for one in self.said if isinstance(one.fact, ModelDownloaded))
        return next((fact.model_path for fact in found), "")

    def _newest(self) -> list[Said[Fact]]:
        return [one for one in self.said if one.fact.generation == self.generation]


def stage_of(name: str) -> str:
    """The stage's name for people: progress may name the service instead."""
    return _STAGE_OF_SERVICE.get(name, name)


def stage_seconds(at: Mapping[str, float]) -> dict[str, float]:
    """Seconds of each stage that was ended, from the times at which statuses were reached."""
    return {
        name: round(max(0.0, at[end] - at[begin]), 3)
        for name, begin, end in STAGES
        if begin in at and end in at
    }


def share_done(progress: Progress) -> float:
    """How much of the work is done, 0 to 1."""
    return min(1.0, progress.done / progress.total) if progress.total else 0.0
