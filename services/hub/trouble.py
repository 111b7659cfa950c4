"""Whatever huggingface_hub raises, in williw's terms: what will not pass, and what may."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

from messages.failures import Permanent
from services.hub.account import endpoint, host, token
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
    from huggingface_hub.errors import HfHubHTTPError

_PASSING_STATUS = frozenset({408, 425, 429})


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
        raise HubUnavailable(
            f"{model_name}: no answer from the Hub at {host()}: {_kind(error)}; see HF_ENDPOINT,"
            " the network and its proxies"
        ) from None
    except json.JSONDecodeError:
        raise HubUnavailable(
            f"{model_name}: {endpoint()} answered, but not as a Hub does"
        ) from None


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
