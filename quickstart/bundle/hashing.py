"""A stream that counts and hashes what goes through it."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, BinaryIO

if TYPE_CHECKING:
    from collections.abc import Iterable

CHUNK = 1 << 20


class Hashing:
    """Passes bytes on, counts and hashes them."""

    def __init__(self, sink: BinaryIO) -> None:
        self.sink, self.size, self._digest = sink, 0, hashlib.sha256()

    @property
    def sha256(self) -> str:
        """The hash of all that was written."""
        return self._digest.hexdigest()

    def writelines(self, chunks: Iterable[bytes]) -> None:
        """Write many bytes."""
        for chunk in chunks:
            self.write(chunk)

    def write(self, data: bytes) -> int:
        """Write bytes."""
        self.size += len(data)
        self._digest.update(data)
        return self.sink.write(data)
