"""From words on the command line to a model request."""

import os
import re
import secrets
from pathlib import Path

import msgspec

from messages.ids import JobId, NodeId, is_id
from messages.jobs import ModelRequest
from messages.wishes import Wishes
from services.console.failures import Usage

_FIELD = re.compile(r"`\$\.(\w+)")
_RULES = {
    "model_name": "a model is `name` or `org/name` on the Hub, or the path of a directory",
    "revision": "a revision is a branch, a tag or a commit of the Hub",
    "batch_size": "a batch is a whole number of sequences, from 1 to 65,536",
    "sequence_length": "a sequence is a whole number of tokens, from 1 to 16,777,216",
    "timeout_s": "a time limit is a number of seconds above 0, at most 366 days",
}


def model_named(model: str) -> str:
    """The model's Hub id, or the absolute path where `model` is a directory here.

    Links in the path are kept: its last name is the model's short name. Usage where it looks like
    a path and is no directory.
    """
    if not model:
        raise Usage("no model was named", advice="name one of the Hub (org/name) or a directory")
    path = Path(model).expanduser()
    if path.is_dir():
        return os.path.abspath(path)  # noqa: PTH100  # Path.absolute keeps `..`, resolve drops links
    if model.startswith(("/", "./", "../", "~")) or path.exists():
        raise Usage(f"{model} is not a directory", advice="name a model's directory, or org/name")
    return model


def request_for(
    model_name: str,
    *,
    revision: str = "main",
    batch_size: int = 1,
    sequence_length: int = 512,
    strategy: str | None = None,
    job_id: JobId | None = None,
    node_id: NodeId | None = None,
    timeout_s: float | None = None,
    wishes: Wishes | None = None,
) -> ModelRequest:
    """The request, checked as its reader will; Usage says which field is wrong."""
    fields = {
        "type": "ModelRequest",
        "model_name": model_name,
        "revision": revision,
        "batch_size": batch_size,
        "sequence_length": sequence_length,
        "strategy": strategy,
        "job_id": job_id or new_job_id(),
        "node_id": node_id,
        "timeout_s": timeout_s,
        "wishes": msgspec.to_builtins(wishes or Wishes()),
    }
    try:
        return msgspec.convert(fields, ModelRequest)
    except msgspec.ValidationError as error:
        field = _FIELD.search(str(error))
        why = _RULES.get(field[1] if field else "", str(error))
        raise Usage(f"cannot request {model_name[:200]!r}: {why}") from None


def new_job_id() -> JobId:
    """A fresh job's id."""
    return JobId(f"job-{secrets.token_hex(6)}")


def job_named(text: str) -> JobId:
    """A job's id as given; Usage where it cannot be one."""
    if not is_id(text):
        raise Usage(
            f"{text[:80]!r} is no job id",
            advice="ids are letters, digits, - and _; `williw jobs` lists them",
        )
    return JobId(text)
