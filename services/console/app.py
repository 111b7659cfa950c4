"""The table of commands, and the one place where an error becomes a message and an exit code."""

import os
import sys
from collections.abc import Sequence

import cyclopts

from messages.failures import Passing, Permanent
from services.console.failures import (
    EXIT_FAILED,
    EXIT_USAGE,
    exit_code_of,
    first_known,
    tell,
)

# Each is imported only when it is used: `williw --help` then costs a fifth of a second.
_COMMANDS = {
    "up": ("up:up", "Start everything on this machine; with MODEL, bring it to the nodes."),
    "run": ("run:run", "Run services in this process, for systemd and Kubernetes."),
    "request": ("request:request", "Ask for a model to be brought to the nodes."),
    "tap": ("tap:tap", "Show what is said on the bus, live."),
    "jobs": ("jobs:jobs", "List the jobs the bus remembers."),
    "status": ("jobs:status", "Show where a job stands."),
    "plan": ("jobs:plan", "Print a job's plan as JSON."),
    "cancel": ("ending:cancel", "Stop a job at whatever stage it is."),
    "retry": ("ending:retry", "Try an ended job again."),
    "explain": ("explain:explain", "Say why a job's plan is as it is."),
    "nodes": ("nodes:nodes", "List the live nodes."),
    "profile": ("profile:profile", "Print a model's metadata: what each tensor costs."),
    "preview": ("preview:preview", "Print the plan for a model and nodes, without a bus."),
    "split": ("split:split", "Cut a model into stage directories by a plan."),
    "verify": ("verify:verify", "Check stage directories, and that they cover their model."),
    "provision": ("provision:provision", "Create streams, buckets and consumers on the bus."),
    "schema": ("schema:schema", "Print the JSON Schema of a message or file."),
    "doctor": ("doctor:doctor", "Check bus, disk, Hub token and clock; say what to mend."),
}
_GROUPS = {
    "dead": (
        "Messages that were given up.",
        {
            "list": ("dead:list_letters", "List dead letters."),
            "show": ("dead:show", "Show one dead letter whole."),
            "retry": ("dead:retry", "Send dead letters again."),
            "drop": ("dead:drop", "Remove dead letters."),
        },
    ),
    "node": (
        "This machine as a node.",
        {"prune": ("nodes:prune", "Remove stages that no job uses, the least recent first.")},
    ),
}


def run(tokens: Sequence[str]) -> int:
    """The exit code of a command line: 0 done, 1 failed, 2 usage, 3 bus unreachable."""
    try:
        rest = _settings_file(tokens)
        result = _app(rest)(rest, exit_on_error=False, print_error=True)
    except cyclopts.CycloptsError:
        return EXIT_USAGE
    except (Permanent, Passing, BaseExceptionGroup) as error:
        known = first_known(error)
        if known is None:
            raise
        tell(known)
        return exit_code_of(known)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # The reader of our output went away; what Python would flush at exit has nowhere to go.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_FAILED
    except OSError as error:
        if error.filename is None:  # nothing that a person named
            raise
        tell(Permanent(f"{str(error.filename)[:200]}: {error.strerror}", advice="see to that path"))
        return EXIT_FAILED
    return result if isinstance(result, int) else 0


def _app(tokens: Sequence[str]) -> cyclopts.App:
    app = cyclopts.App(
        name="williw",
        help="Bring each of a handful of machines exactly its part of a model, verified.",
        help_epilogue="Every command has --help with an example and --json. "
        "`--config FILE` before the command names a settings file.",
        version="0.1.0",
        result_action="return_value",
        suppress_keyboard_interrupt=False,
        help_format="plaintext",
    )
    _fill(app, _COMMANDS, tokens[:1])
    for name, (text, commands) in _GROUPS.items():
        group = cyclopts.App(name=name, help=text, result_action="return_value")
        _fill(group, commands, tokens[1:2] if tokens[:1] == [name] else ())
        app.command(group)
    return app


def _fill(app: cyclopts.App, commands: dict[str, tuple[str, str]], chosen: Sequence[str]) -> None:
    """Add the commands; the `chosen` one says its own help, which is longer than its line here."""
    for name, (place, text) in commands.items():
        told = {} if name in chosen else {"help": text}
        app.command(f"services.console.commands.{place}", name=name, **told)


def _settings_file(tokens: Sequence[str]) -> list[str]:
    """The tokens without a leading `--config FILE`, which is handed on to child processes too."""
    rest = list(tokens)
    if rest[:1] == ["--config"] and len(rest) > 1:
        os.environ["WILLIW_CONFIG"] = os.path.abspath(rest[1])  # noqa: PTH100  # keeps links
        return rest[2:]
    return rest
