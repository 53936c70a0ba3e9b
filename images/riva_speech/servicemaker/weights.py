"""The weights of a checkpoint: a torch file that nobody vouches for.

Its pickle is loaded without running anything. A torch file is a zip, whose entries torch would
inflate; a tensor is a view of its bytes, and may claim any shape over a single one of them.
"""

from __future__ import annotations

import pickle
import struct
import zipfile
from typing import TYPE_CHECKING, Any

from riva_speech.errors import DamagedArchiveError
from riva_speech.servicemaker.sizes import count, fewest_weights, filters

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    import torch

# What torch knows its zips by, wherever they say that they end.
_ZIP = b"PK\x03\x04"
# What a pickle that was not written by torch makes its unpickler say.
_UNREADABLE = (
    pickle.UnpicklingError,
    struct.error,
    ArithmeticError,
    AssertionError,
    AttributeError,
    EOFError,
    LookupError,
    RuntimeError,
    TypeError,
    ValueError,
)
# Tied tensors are stored once, and NeMo's models tie few.
_MOST_TIED = 2
# No number in a description of a model's modules is as large, nor do its positions reach as far.
_MOST, _MOST_POSITIONS = 1_000_000, 100_000
# Of 128 features and 512 points there are 32768.
_MOST_FILTERS = 16_000_000


def load(path: Path) -> dict[str, torch.Tensor]:
    """Read a state dict.

    Raises:
        DamagedArchiveError: It is none, is cut short, or holds what no checkpoint may hold.
    """
    import torch  # noqa: PLC0415 - takes long to import

    is_zip = _is_zip(path)
    if is_zip:
        _refuse_deflated(path)
    try:
        # Mapped weights take memory only where they are read, and can be given back.
        weights = torch.load(path, map_location="cpu", weights_only=True, mmap=is_zip)
    except _UNREADABLE as error:
        reason = (str(error).splitlines() or ["unreadable"])[0]
        raise _refused(reason) from error
    if not isinstance(weights, dict):
        raise _refused("they are no state dict")
    _refuse_views(weights, path.stat().st_size)
    return weights


def refuse_giants(
    config: Mapping[str, Any],
    loaded: Mapping[str, torch.Tensor],
    *,
    resolved: Mapping[str, Any] | None = None,
) -> None:
    """Refuse a configuration of a larger model than there are weights for.

    NeMo allocates a model before it looks at the weights, so a few characters in a checkpoint could
    take all of a machine's memory. Where values of ``config`` may point to others, ``resolved``
    follows them when it is read.

    Raises:
        DamagedArchiveError: Its numbers are too large.
    """
    largest = max(_numbers(config), default=0)
    resolved = config if resolved is None else resolved
    positions = count(resolved.get("encoder", {}).get("pos_emb_max_len"))
    there = sum(tensor.numel() for tensor in loaded.values())
    fit = largest <= _MOST and positions <= _MOST_POSITIONS and filters(resolved) <= _MOST_FILTERS
    if not fit or fewest_weights(resolved) > there:
        raise DamagedArchiveError(
            f"the checkpoint's configuration asks for a larger model than its {there} weights make"
        )


def _numbers(value: object) -> Iterator[int]:
    """Yield every whole number of a configuration."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        for entry in value:
            yield from _numbers(entry)
    elif isinstance(value, int):
        yield value


def _is_zip(path: Path) -> bool:
    """Whether torch takes a file for a zip; before 1.6 it stored tensors as they are."""
    with path.open("rb") as file:
        return file.read(len(_ZIP)) == _ZIP


def _refuse_deflated(path: Path) -> None:
    """Let no entry of a torch file be larger than what is stored of it."""
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
    except (zipfile.BadZipFile, NotImplementedError) as error:
        raise _refused(str(error)) from error
    stored = all(entry.compress_type == zipfile.ZIP_STORED for entry in entries)
    if not stored or sum(entry.file_size for entry in entries) > path.stat().st_size:
        raise _refused("they unpack to more than is stored")


def _refuse_views(weights: Mapping[object, object], limit: int) -> None:
    """Let tensors be dense, and together no larger than their file, but for tied ones."""
    import torch  # noqa: PLC0415 - as above

    total = 0
    for name, tensor in weights.items():
        dense = isinstance(tensor, torch.Tensor) and tensor.layout == torch.strided
        if not (isinstance(tensor, torch.Tensor) and dense and tensor.device.type == "cpu"):
            raise _refused(f"{name!r} is no plain tensor")
        total += tensor.numel() * tensor.element_size()
        if total > _MOST_TIED * limit:
            raise _refused("tensors claim to be larger than the file that holds them")


def _refused(reason: str) -> DamagedArchiveError:
    return DamagedArchiveError(f"the checkpoint's weights are refused: {reason}")
