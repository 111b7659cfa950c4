"""Reading settings: the defaults, a TOML file, then environment variables, each checked.

`WILLIW_<SECTION>_<KEY>` overrides any key; the names that the Hub's tools and williw's first users
know (`NODE_ID`, `METADATA_REPO`, `WILLIW_NATS_URL`) are kept beside.
"""

import difflib
import os
import socket
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_type_hints

import msgspec

from config.machines import node_id_of
from config.settings import Section, Settings
from messages.failures import Permanent
from messages.ids import NodeId, is_id

FILE_VARIABLE = "WILLIW_CONFIG"
_KEPT_NAMES = {
    "NODE_ID": ("node", "node_id"),
    "METADATA_REPO": ("uploader", "metadata_repo"),
    "WILLIW_NATS_URL": ("bus", "url"),
    "WILLIW_HOME": ("node", "home"),
}
# Where a setting stood before: a file or a variable that says it there is understood.
_MOVED = {("distributor", "relay"): ("planner", "relay")}


class BadSettings(Permanent):
    """A setting that is unknown, of the wrong type, or out of its range."""


def load(
    file: Path | None = None,
    environ: Mapping[str, str] | None = None,
    overrides: Mapping[str, Mapping[str, object]] | None = None,
) -> Settings:
    """The settings of this process; BadSettings says which key is wrong and what was meant."""
    env = os.environ if environ is None else environ
    if file is None and env.get(FILE_VARIABLE):
        file = Path(env[FILE_VARIABLE])
    tables: dict[str, dict[str, object]] = _from_file(file) if file else {}
    for (section, key), text in _from_environ(env).items():
        tables.setdefault(section, {})[key] = text
    for section, values in (overrides or {}).items():
        tables.setdefault(section, {}).update(values)
    try:
        settings = msgspec.convert(tables, Settings, strict=False)
    except msgspec.ValidationError as error:
        raise BadSettings(
            f"settings: {error}", advice="config/williw.toml lists every key"
        ) from None
    return _with_node_id(settings)


def as_environ(overrides: Mapping[str, Mapping[str, object]]) -> dict[str, str]:
    """The environment variables that give a child process these settings."""
    encoded: dict[str, str] = {}
    for section, values in overrides.items():
        for key, value in values.items():
            text = value if isinstance(value, str) else msgspec.json.encode(value).decode()
            encoded[f"WILLIW_{section.upper()}_{key.upper()}"] = text
    return encoded


def sections() -> dict[str, type[Section]]:
    """The tables of the settings file by name."""
    return dict(get_type_hints(Settings))


def _from_file(file: Path) -> dict[str, dict[str, object]]:
    try:
        tables = tomllib.loads(file.read_text())
    except OSError as error:
        raise BadSettings(f"settings file {file}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BadSettings(f"settings file {file} is not TOML: {error}") from None
    for section, values in tables.items():
        kind = _known(section, sections(), f"[{section}] in {file}")
        if not isinstance(values, dict):
            raise BadSettings(f"{section} in {file} must be a table: [{section}]")
        for key in values:
            if (section, key) not in _MOVED:
                _known(key, get_type_hints(kind), f"{key} in [{section}] of {file}")
    return _moved(tables)


def _moved(tables: dict[str, dict[str, object]]) -> dict[str, dict[str, object]]:
    """The tables with each setting where it stands now; what is said there wins."""
    for (section, key), (place, name) in _MOVED.items():
        if key in tables.get(section, {}):
            tables.setdefault(place, {}).setdefault(name, tables[section].pop(key))
    return tables


def _known(name: str, names: Mapping[str, Any], where: str) -> Any:
    if name in names:
        return names[name]
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.4)
    meant = f"; did you mean {near[0]}?" if near else f"; known: {', '.join(sorted(names))}"
    raise BadSettings(f"unknown setting {where}{meant}")


def _from_environ(env: Mapping[str, str]) -> dict[tuple[str, str], object]:
    found: dict[tuple[str, str], object] = {}
    kept = {f"WILLIW_{s.upper()}_{k.upper()}": place for (s, k), place in _MOVED.items()}
    for name, place in (kept | _KEPT_NAMES).items():
        if env.get(name):
            found[place] = env[name]
    for section, kind in sections().items():
        for key, hint in get_type_hints(kind).items():
            text = env.get(f"WILLIW_{section.upper()}_{key.upper()}")
            if text is not None:
                found[section, key] = _parsed(text, hint)
    return found


def _parsed(text: str, hint: object) -> object:
    """A list is written as JSON or with commas; everything else is converted from its text."""
    if "tuple" not in str(hint):
        return text
    if text.startswith("["):
        try:
            return msgspec.json.decode(text)
        except msgspec.DecodeError as error:
            raise BadSettings(f"not a JSON list: {error}") from None
    return [part.strip() for part in text.split(",") if part.strip()]


def _with_node_id(settings: Settings) -> Settings:
    node_id = settings.node.node_id or node_id_of(settings.node.machine or socket.gethostname())
    if not is_id(node_id):
        raise BadSettings(
            f"node id {node_id[:80]!r} is not letters, digits, - and _ (64 at most)",
            advice="set NODE_ID, or node_id in [node]",
        )
    node = msgspec.structs.replace(settings.node, node_id=NodeId(node_id))
    return msgspec.structs.replace(settings, node=node)
