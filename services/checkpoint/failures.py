"""Why a checkpoint was refused: one class for each part of it that can be wrong."""

from messages.failures import Permanent

_DAMAGED = "download the file again, or ask whoever made it; nothing of it was used"


class BadCheckpoint(Permanent):
    """A checkpoint that cannot be read, or must not be believed."""


class BadHeader(BadCheckpoint):
    """The header of one safetensors file is malformed or hostile; `file` and `why` say how."""

    def __init__(self, file: str, why: str) -> None:
        super().__init__(f"{file}: {why}", advice=_DAMAGED)
        self.file = file
        self.why = why


class BadIndex(BadCheckpoint):
    """The index of a sharded checkpoint disagrees with its files, or points outside."""


class BadConfig(BadCheckpoint):
    """config.json is missing, is not a JSON object, or is larger than any real one."""


class ChangedFile(BadCheckpoint):
    """A file is shorter than it was when its header was read."""


class DuplicateTensor(BadCheckpoint):
    """Two files of one checkpoint hold a tensor of the same name."""

    def __init__(self, tensor: str, first: str, second: str) -> None:
        super().__init__(
            f"tensor {tensor} is in both {first} and {second}",
            advice="keep only the files of one copy of the weights in the directory",
        )
        self.tensor = tensor
        self.files = (first, second)


class EscapingFile(BadCheckpoint):
    """A file name or symbolic link of the checkpoint leads outside its directory."""


class NoWeights(BadCheckpoint):
    """The directory holds no safetensors file; the advice says what to do with what it holds."""
