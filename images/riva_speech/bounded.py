"""Reading files that nobody vouches for without giving them memory or disk that they do not fill.

A few kilobytes of gzip unpack to gigabytes, a header of a tar may claim any size, and an array of
numpy is allocated before its bytes are read. What is read here has a limit that is known before.
"""

from __future__ import annotations

import io
import tokenize
import zipfile
import zlib
from typing import IO, TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Collection
    from gzip import GzipFile
    from pathlib import Path

    from numpy.typing import NDArray

# No header of a tar is as long, and whoever copies a member asks for less at once.
_MAX_READ = 8 << 20
_MAX_ARRAY_HEADER = 1 << 16
_HEADER_READERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}
# What numpy writes. Other ways of packing may take gigabytes to unpack the first byte.
_PACKED = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
# What a damaged zip, and a header that is no Python, make the libraries say.
_UNREADABLE = (
    zipfile.BadZipFile,
    zlib.error,
    EOFError,
    MemoryError,  # Python's parser, of brackets too deep
    NotImplementedError,
    OverflowError,
    RuntimeError,
    TypeError,
    tokenize.TokenError,
)


class LimitError(ValueError):
    """A file is, or claims to be, larger than it may be."""


class LimitedReader(io.RawIOBase):
    """A file of which only the first ``limit`` bytes, and only a few at once, are ever read."""

    def __init__(self, file: IO[bytes] | GzipFile, limit: int) -> None:
        """Read from ``file``, which is closed with this."""
        super().__init__()
        self._file = file
        self._limit = limit

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def tell(self) -> int:
        """Return the position."""
        return self._file.tell()

    def seek(self, position: int, whence: int = io.SEEK_SET) -> int:
        """Go to a position; of a compressed file, all before it is unpacked.

        Raises:
            LimitError: It lies behind the limit.
        """
        if whence == io.SEEK_SET and position > self._limit:
            raise LimitError(f"it claims to hold more than {self._limit} bytes")
        return self._file.seek(position, whence)

    def read(self, size: int = -1) -> bytes:
        """Read bytes.

        Raises:
            LimitError: They are too many, or lie behind the limit.
        """
        if not 0 <= size <= _MAX_READ:
            raise LimitError(f"a part of it claims to have {size} bytes")
        if self._file.tell() + size > self._limit + _MAX_READ:
            raise LimitError(f"it holds more than {self._limit} bytes")
        return self._file.read(size)

    def close(self) -> None:
        """Close the file."""
        self._file.close()
        super().close()


def load_arrays(path: Path, names: Collection[str], limit: int) -> dict[str, NDArray[Any]]:
    """Read arrays of numbers from a ``.npz``, none of them larger than ``limit`` bytes.

    Raises:
        LimitError: One is, or claims to be.
        ValueError: The file is none, an array holds no numbers, or one is cut short.
        KeyError: There is no such array.
        OSError: The file cannot be read.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            return {name: _array(archive, f"{name}.npy", limit) for name in names}
    except _UNREADABLE as error:
        raise ValueError(f"it is no readable .npz: {error}") from error


def _array(archive: zipfile.ZipFile, name: str, limit: int) -> NDArray[Any]:
    entry = archive.getinfo(name)
    if entry.compress_type not in _PACKED:
        raise ValueError(f"{name} is packed in an unknown way")
    if entry.file_size > limit + _MAX_ARRAY_HEADER:
        raise LimitError(f"{name} claims to hold more than {limit} bytes")
    with archive.open(name) as file:
        read_header = _HEADER_READERS.get(np.lib.format.read_magic(file))
        if read_header is None:
            raise ValueError(f"{name} is of an unknown version")
        shape, in_columns, kind = read_header(file)
        if not np.issubdtype(kind, np.number):
            raise ValueError(f"{name} holds no numbers")
        size = kind.itemsize
        for length in shape:
            size *= length
            if size > limit:
                raise LimitError(f"{name} claims to hold more than {limit} bytes")
        content = file.read(size)
    if len(content) != size:
        raise ValueError(f"{name} is cut short")
    return np.frombuffer(content, kind).reshape(shape, order="F" if in_columns else "C")
