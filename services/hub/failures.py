"""What goes wrong with a model on the Hub, each error with the data that explains it."""

from messages.failures import Passing, Permanent


class ModelRefused(Permanent):
    """The Hub has no such model, or not for us."""

    def __init__(self, model_name: str, reason: str, *, advice: str) -> None:
        super().__init__(f"{model_name}: {reason}", advice=advice)
        self.model_name = model_name


class GatedModel(ModelRefused):
    """The model's owner asks for consent, which this account has not given."""


class NoSuchModel(ModelRefused):
    """No repository of that name, or a private one that this account cannot see."""


class NoSuchRevision(ModelRefused):
    """The repository has no such branch, tag or commit."""


class NoSuchFile(ModelRefused):
    """The commit has no such file."""


class TokenRefused(ModelRefused):
    """The Hub does not accept the token, or it may not do this."""


class NoToken(ModelRefused):
    """Something has to be written to the Hub and no token is set."""


class UnusableModel(ModelRefused):
    """The repository or directory holds no weights that williw can read."""


class UnsafeName(ModelRefused):
    """A file's name points out of the model's directory."""


class WrongDigest(ModelRefused):
    """A file's bytes are not those that the Hub announced, twice in a row."""

    def __init__(self, model_name: str, path: str, *, expected: str, found: str) -> None:
        super().__init__(
            model_name,
            f"{path} arrived twice with digest {found[:16]} instead of {expected[:16]}",
            advice="something between here and the Hub changes the bytes: look at HF_ENDPOINT and"
            " at any proxy, then request the model again",
        )
        self.path, self.expected, self.found = path, expected, found


class NotEnoughDisk(ModelRefused):
    """The disk has not enough free bytes for what is still to come."""

    def __init__(
        self,
        model_name: str,
        directory: str,
        *,
        needed_bytes: int,
        free_bytes: int,
        keep_bytes: int,
    ) -> None:
        super().__init__(
            model_name,
            f"{needed_bytes} bytes are still needed in {directory}, where {free_bytes} are free"
            f" and {keep_bytes} must stay so",
            advice="free some disk, or set WILLIW_HOME (home in [node]) to a larger one",
        )
        self.directory = directory
        self.needed_bytes, self.free_bytes, self.keep_bytes = needed_bytes, free_bytes, keep_bytes


class HubUnavailable(Passing):
    """The Hub does not answer, or asks for patience; `after_s` is how long it said to wait."""
