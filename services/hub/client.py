"""The connection to the Hub: where it is, who we are there, and its errors in williw's terms.

huggingface_hub is imported when it is first needed (0.4 s), and HF_ENDPOINT is read at each call:
the library keeps the value that it saw when it was imported.
"""

import json
import os
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import anyio

from messages.failures import Permanent
from services.hub.failures import (
    GatedModel,
    HubUnavailable,
    ModelRefused,
    NoSuchFile,
    NoSuchModel,
    NoSuchRevision,
    TokenRefused,
)

if TYPE_CHECKING:
    from httpx2 import AsyncClient, Response
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

T = TypeVar("T")
TIMEOUT_S = 30.0
_PASSING_STATUS = frozenset({408, 425, 429})


def endpoint() -> str:
    """The Hub's address, as HF_ENDPOINT says now."""
    return (os.environ.get("HF_ENDPOINT") or "https://huggingface.co").rstrip("/")


def token() -> str | None:
    """The Hub token of this machine: HF_TOKEN, else the one that `hf auth login` kept."""
    from huggingface_hub import get_token

    return get_token()


def cache_directory() -> Path:
    """The Hub's own cache on this machine, as its tools would find it now."""
    environ = os.environ
    if environ.get("HF_HUB_CACHE"):
        return Path(environ["HF_HUB_CACHE"]).expanduser()
    home = environ.get("HF_HOME") or Path(environ.get("XDG_CACHE_HOME", "~/.cache"), "huggingface")
    return Path(home).expanduser() / "hub"


def file_url(model_name: str, commit: str, path: str) -> str:
    """Where a file of a commit is to be had."""
    from huggingface_hub import hf_hub_url

    return hf_hub_url(model_name, path, revision=commit, endpoint=endpoint())


def headers() -> dict[str, str]:
    """What identifies us; bodies come as they are stored, so that ranges and digests hold."""
    from huggingface_hub.utils import build_hf_headers

    built = build_hf_headers(token=token(), library_name="williw")
    return {**built, "Accept-Encoding": "identity"}


@asynccontextmanager
async def session() -> AsyncIterator["AsyncClient"]:
    """The library's own HTTP client, with its proxies, certificates and hooks."""
    from huggingface_hub import get_async_session

    async with await anyio.to_thread.run_sync(get_async_session) as client:
        yield client


async def call(
    model_name: str,
    ask: Callable[["HfApi"], T],
    *,
    revision: str = "",
    timeout_s: float = TIMEOUT_S,
) -> T:
    """The answer of one call of the library, made in a thread; it is left behind when it hangs.

    Raises ModelRefused or HubUnavailable.
    """
    with hub_errors(model_name, revision=revision), anyio.fail_after(timeout_s):
        return await anyio.to_thread.run_sync(partial(_ask, ask), abandon_on_cancel=True)


def _ask(ask: Callable[["HfApi"], T]) -> T:
    from huggingface_hub import HfApi

    return ask(HfApi(endpoint=endpoint(), token=token(), library_name="williw"))


@contextmanager
def hub_errors(model_name: str, *, revision: str = "", path: str = "") -> Iterator[None]:
    """Whatever the library raises, as ModelRefused or HubUnavailable. Never holds a token."""
    import httpx2
    from huggingface_hub.errors import (
        HfHubHTTPError,
        HFValidationError,
        OfflineModeIsEnabled,
    )

    try:
        yield
    except HfHubHTTPError as error:
        raise _failure(error, model_name, revision, path) from None
    except HFValidationError:
        raise NoSuchModel(
            model_name, "is not a name the Hub can have", advice="names look like org/name"
        ) from None
    except OfflineModeIsEnabled:
        raise ModelRefused(
            model_name,
            "is not on this disk, and HF_HUB_OFFLINE forbids asking the Hub",
            advice="unset HF_HUB_OFFLINE, or give the whole commit of a model in the cache",
        ) from None
    except (httpx2.HTTPError, httpx2.StreamError, TimeoutError) as error:
        raise HubUnavailable(f"{model_name}: no answer from the Hub: {_kind(error)}") from None
    except json.JSONDecodeError:
        raise HubUnavailable(
            f"{model_name}: {endpoint()} answered, but not as a Hub does"
        ) from None


async def raise_for(response: "Response") -> None:
    """Raise the library's own error where the answer is one."""
    from huggingface_hub.utils import hf_raise_for_status

    if response.is_error:
        await response.aread()
    hf_raise_for_status(response)


def _failure(error: "HfHubHTTPError", model_name: str, revision: str, path: str) -> Exception:
    from huggingface_hub.errors import (
        DisabledRepoError,
        EntryNotFoundError,
        GatedRepoError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    status = error.response.status_code
    if isinstance(error, GatedRepoError):  # a RepositoryNotFoundError as well: it comes first
        return _gated(model_name)
    if isinstance(error, RevisionNotFoundError):
        return NoSuchRevision(
            model_name,
            f"has no revision {revision or 'of that name'}",
            advice="use main, or a branch, tag or commit that the model's page lists",
        )
    if isinstance(error, EntryNotFoundError):
        return NoSuchFile(
            model_name,
            f"has no file {path} at {revision[:16]}",
            advice="request the model again, so that its files are listed anew",
        )
    if isinstance(error, DisabledRepoError):
        return ModelRefused(
            model_name, "was disabled by the Hub", advice="ask for another model or a copy of it"
        )
    if isinstance(error, RepositoryNotFoundError):
        return NoSuchModel(
            model_name,
            "is not on the Hub, or is private",
            advice="check the spelling; for a private model set HF_TOKEN on the origin",
        )
    return _by_status(status, error.response.headers, model_name)


def _gated(model_name: str) -> Permanent:
    page = f"{endpoint()}/{model_name}"
    if token() is None:
        return GatedModel(
            model_name,
            "is gated: its owner gives access to accounts that asked for it",
            advice=f"ask on {page}, then set HF_TOKEN of that account on the origin",
        )
    return GatedModel(
        model_name,
        "is gated, and the account of HF_TOKEN has no access",
        advice=f"ask for access on {page} with that account, then request the model again",
    )


def _by_status(status: int, answered: Mapping[str, str], model_name: str) -> Exception:
    if status in _PASSING_STATUS or status >= 500:
        return HubUnavailable(
            f"{model_name}: the Hub answered {status}", after_s=_retry_after_s(answered)
        )
    if status in (401, 403):
        return TokenRefused(
            model_name,
            f"the Hub refused the token ({status})" if token() else f"the Hub answered {status}",
            advice="set HF_TOKEN to a valid token that may do this (see `hf auth whoami`)",
        )
    return ModelRefused(
        model_name,
        f"the Hub answered {status}",
        advice="see whether HF_ENDPOINT is a Hub, and whether the model's page opens",
    )


def _retry_after_s(answered: Mapping[str, str]) -> float:
    from huggingface_hub.utils import parse_ratelimit_headers

    limit = parse_ratelimit_headers(answered)
    if limit is not None and limit.remaining == 0:
        return float(limit.reset_in_seconds)
    text = answered.get("retry-after", "")
    return float(text) if text.isdigit() else 0.0


def _kind(error: Exception) -> str:
    """What happened, in the words of the exception's name: URLs can hold signatures."""
    words = type(error).__name__
    return "".join(f" {c.lower()}" if c.isupper() else c for c in words).strip()
