"""The file names that a model's name becomes: its own directory, its metadata file."""

import re

_UNFIT = re.compile(r"[^A-Za-z0-9_.-]")


def is_path(model_name: str) -> bool:
    """Whether the name is a directory on the origin instead of a repository on the Hub."""
    return model_name.startswith("/")


def short_name(model_name: str) -> str:
    """`org/name` as it is; the directory `/a/b/name` becomes `local/name`."""
    if not is_path(model_name):
        return model_name
    last = model_name.rstrip("/").rpartition("/")[2]
    return f"local/{_UNFIT.sub('-', last)}"


def directory_name(model_name: str) -> str:
    """`org--name`, or the bare name of a Hub id without an organisation."""
    return short_name(model_name).replace("/", "--")


def metadata_file_name(model_name: str) -> str:
    """`org_name_metadata.json`: what the metadata file is called wherever it is kept."""
    return f"{short_name(model_name).replace('/', '_')}_metadata.json"
