"""`williw split`: stage directories from a plan, without a bus."""

import functools
from pathlib import Path
from typing import Any

from messages.failures import Permanent
from messages.ids import NodeId
from messages.plans import SplitPlan
from services.console.failures import EXIT_DONE, Usage
from services.console.files import read_json
from services.console.options import Answer
from services.console.output import note, say_json, size, table
from services.console.whole import Whole

MOST_JOBS = 256


def split(
    model_dir: Path,
    /,
    *,
    plan: Path,
    out: Path,
    node: str | None = None,
    jobs: Whole = 2,
    output: Answer = None,
) -> int:
    """Cut a model into the stage directories of a plan: OUT/<node>, each appearing by one rename.

    An older stage in its place is replaced, anything else refused. OUT is for one command at a
    time: a second one waits.

    Example: williw split ./model --plan plan.json --out stages

    Parameters
    ----------
    model_dir
        The model's directory.
    plan
        The plan, as `williw plan` and `williw preview` print it.
    out
        Where the stage directories go.
    node
        Cut this node's stage only.
    jobs
        Stages cut side by side.
    """
    if not model_dir.is_dir():
        raise Usage(f"{model_dir} is not a directory")
    if not 1 <= jobs <= MOST_JOBS:
        raise Usage(f"--jobs must be from 1 to {MOST_JOBS}, not {jobs}")
    wanted = read_json(plan, SplitPlan)
    from services.splitter.failures import Occupied
    from services.splitter.split import split_directory

    chosen = None if node is None else NodeId(node)
    waiting = functools.partial(note, f"another command cuts into {out}: waiting for it")
    try:
        made = split_directory(model_dir, wanted, out, chosen, jobs, waiting)
    except Occupied as error:
        raise Usage(error.reason, advice=error.advice) from None
    except OSError as error:
        raise Permanent(f"cannot write {error.filename or out}: {error.strerror}") from None
    if output and output.json:
        say_json({"type": "Split", "plan_id": wanted.plan_id, "stages": [_object(s) for s in made]})
    else:
        rows = [
            (one.node_id, one.stage + 1, size(one.size_bytes), str(one.directory), _how(one))
            for one in made
        ]
        table(("node", "stage", "size", "directory", ""), rows)
    return EXIT_DONE


def _object(stage: Any) -> dict[str, Any]:
    return {
        "node_id": stage.node_id,
        "stage": stage.stage,
        "stage_dir": str(stage.directory),
        "bytes": stage.size_bytes,
        "written": stage.written,
    }


def _how(stage: Any) -> str:
    return "" if stage.written else "as it was"
