"""`williw verify`: stage directories against their digests, each other, and the model."""

from pathlib import Path

from services.checkpoint.stage import VerifyReport
from services.checkpoint.stage import verify as check
from services.console.failures import EXIT_DONE, EXIT_FAILED, Usage
from services.console.options import Answer
from services.console.output import plain, say, say_json, size, table


def verify(*stage_dir: Path, model: Path | None = None, output: Answer = None) -> int:
    """Check every digest of stage directories, and what they hold together.

    Example: williw verify models/* --model ./all-MiniLM-L6-v2

    Parameters
    ----------
    stage_dir
        Stage directories; all of a plan for full coverage.
    model
        The model they were cut from: each tensor's bytes are compared, none may be missing.
    """
    if not stage_dir:
        raise Usage("no stage directory was named")
    for directory in (*stage_dir, *([model] if model else [])):
        if not directory.is_dir():
            raise Usage(f"{directory} is not a directory")
    report = check(list(stage_dir), model)
    if output and output.json:
        say_json({"type": "VerifyReport", **plain(report)})
    else:
        _show(report)
    return EXIT_DONE if report.ok else EXIT_FAILED


def _show(report: VerifyReport) -> None:
    rows = [
        (one.node_id, f"{one.stage + 1} of {one.stages}", one.tensor_count, size(one.size_bytes))
        for one in report.stages
    ]
    table(("node", "stage", "tensors", "size"), rows)
    for problem in report.problems:
        say(f"problem: {problem}")
    together = "the whole model" if report.coverage == "whole" else "part of the model"
    against = ", compared with the model's bytes" if report.compared else ""
    say(f"{'verified' if report.ok else 'NOT verified'}: {together}{against}")
