"""Deflating the artefacts that it makes smaller, and inflating them within bounds."""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

DEFLATE = "deflate"
# Deflate itself reaches a thousand. What shrinks more than this is stored as it is, so that a
# hostile archive cannot fill a disk either.
MAX_RATIO = 100

_BLOCK = 1 << 20
_SAMPLES, _SAMPLE = 8, 1 << 17
# Floating-point weights lose a few per cent, which is not worth the time.
_WORTHWHILE = 0.9
_LEVEL = 9


def pack(source: Path, target: Path) -> bool:
    """Deflate a file into ``target`` if that is worth it; return whether it was."""
    if not _shrinks(source):
        return False
    compressor = zlib.compressobj(_LEVEL)
    with source.open("rb") as reader, target.open("wb") as writer:
        while block := reader.read(_BLOCK):
            writer.write(compressor.compress(block))
        writer.write(compressor.flush())
    return source.stat().st_size <= MAX_RATIO * target.stat().st_size


def _shrinks(path: Path) -> bool:
    """Judge by samples from all over the file."""
    size = path.stat().st_size
    with path.open("rb") as file:
        whole = packed = 0
        for part in range(_SAMPLES):
            file.seek(part * size // _SAMPLES)
            sample = file.read(min(_SAMPLE, size // _SAMPLES))
            whole, packed = whole + len(sample), packed + len(zlib.compress(sample))
    return packed < _WORTHWHILE * whole


def unpack(blocks: Iterable[bytes], size: int) -> Iterator[bytes]:
    """Inflate what ``pack`` made, block by block, and never more than ``size`` bytes.

    Raises:
        ValueError: The bytes are not deflated ones, or not of that size.
    """
    decompressor, left = zlib.decompressobj(), size
    try:
        for block in blocks:
            pending = block
            while pending and not decompressor.eof:
                plain = decompressor.decompress(pending, _BLOCK)
                pending = decompressor.unconsumed_tail
                left -= len(plain)
                if left < 0:
                    raise ValueError("it inflates to more than its size")
                yield plain
        rest = decompressor.flush()
    except zlib.error as error:
        raise ValueError(f"it does not inflate ({error})") from None
    if len(rest) != left or not decompressor.eof or decompressor.unused_data:
        raise ValueError("it inflates to another size")
    yield rest
