"""A checkpoint: every tensor of a model, which file holds it and where, from headers alone.

    checkpoint = open_checkpoint(directory)
    for tensor in checkpoint:            # in file order, then data order
        tensor.name, tensor.file, tensor.offset, tensor.size_bytes, tensor.dtype, tensor.shape
    checkpoint["model.norm.weight"]      # one of them; KeyError if it has none
    checkpoint.path_of(tensor.file)      # where to read it

`Checkpoint(headers)` makes the same value from headers fetched by range, without a directory.
"""

import math
from collections.abc import Iterator, Mapping
from pathlib import Path

import msgspec

from services.checkpoint.dtypes import DTYPES
from services.checkpoint.failures import DuplicateTensor
from services.checkpoint.files import contained, weight_files
from services.checkpoint.headers import Header, TensorEntry, read_header
from services.checkpoint.index import check_index, read_index

_MANY_FILES = 16
_READERS = 8


class StoredTensor(msgspec.Struct, frozen=True, gc=False):
    """One tensor of a checkpoint: bytes [offset, offset + size_bytes) of the file named `file`."""

    name: str
    file: str
    dtype: str
    shape: tuple[int, ...]
    offset: int
    size_bytes: int

    @property
    def num_elements(self) -> int:
        """The product of the shape; 1 for a scalar."""
        return math.prod(self.shape)

    @property
    def torch_dtype(self) -> str:
        """torch's name of the element type, such as `torch.bfloat16`."""
        return DTYPES[self.dtype].torch_name


class Checkpoint:
    """The tensors of a whole model by name; `files` are its headers by file name, in order.

    `directory` is None where only headers are known. Raises DuplicateTensor where two files hold a
    tensor of the same name.
    """

    def __init__(self, files: Mapping[str, Header], directory: Path | None = None) -> None:
        self.files = dict(files)
        self.directory = directory
        self._file_of: dict[str, str] = {}
        for file, header in self.files.items():
            for name in header.tensors:
                first = self._file_of.setdefault(name, file)
                if first is not file:
                    raise DuplicateTensor(name, first, file)

    def __len__(self) -> int:
        return len(self._file_of)

    def __contains__(self, name: object) -> bool:
        return name in self._file_of

    def __iter__(self) -> Iterator[StoredTensor]:
        for file, header in self.files.items():
            for entry in header.tensors.values():
                yield _stored(file, header, entry)

    def __getitem__(self, name: str) -> StoredTensor:
        file = self._file_of[name]
        header = self.files[file]
        return _stored(file, header, header.tensors[name])

    @property
    def names(self) -> tuple[str, ...]:
        """Every tensor's name, in file order, then data order."""
        return tuple(self._file_of)

    @property
    def size_bytes(self) -> int:
        """Bytes of all tensors as stored, headers not counted."""
        return sum(header.file_size - header.data_start for header in self.files.values())

    def path_of(self, file: str) -> Path:
        """Where `file` is read from; ValueError for a checkpoint known by its headers only."""
        if self.directory is None:
            raise ValueError(f"{file} is known by its header only")
        return self.directory / file


def open_checkpoint(directory: Path) -> Checkpoint:
    """The checkpoint in `directory`, a model in Hub layout: one file, an index, or several files.

    Reads headers only. Raises BadCheckpoint (BadHeader, BadIndex, DuplicateTensor, EscapingFile,
    NoWeights) where anything about it is malformed or leads outside the directory.
    """
    index, names = weight_files(directory)
    checkpoint = Checkpoint(_read_all(directory, names), directory)
    if index:
        check_index(read_index(contained(directory, index)), checkpoint.files)
    return checkpoint


def _read_all(directory: Path, names: tuple[str, ...]) -> dict[str, Header]:
    """The headers of several files, side by side: on a cold or distant disk each one waits."""

    def read(name: str) -> Header:
        return read_header(contained(directory, name), name)

    if len(names) < _MANY_FILES:
        return {name: read(name) for name in names}
    from concurrent.futures import ThreadPoolExecutor  # costs more than one file's header does

    with ThreadPoolExecutor(_READERS) as pool:
        return dict(zip(names, pool.map(read, names), strict=True))


def _stored(file: str, header: Header, entry: TensorEntry) -> StoredTensor:
    return StoredTensor(
        entry.name,
        file,
        entry.dtype,
        entry.shape,
        header.data_start + entry.begin,
        entry.end - entry.begin,
    )
