"""The weights of a checkpoint: a torch file that nobody vouches for.

Its pickle is loaded without running anything. A torch file is a zip, whose entries torch would
inflate; a tensor is a view of its bytes, and may claim any shape over a single one of them.
"""

from __future__ import annotations

import zipfile
from typing import TYPE_CHECKING

from riva_speech.errors import DamagedArchiveError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import torch

# Tied tensors are stored once, and NeMo's models tie few.
_MOST_TIED = 2


def load(path: Path) -> dict[str, torch.Tensor]:
    """Read a state dict.

    Raises:
        DamagedArchiveError: It is none, is cut short, or holds what no checkpoint may hold.
    """
    import pickle  # noqa: PLC0415 - only its error type is used

    import torch  # noqa: PLC0415 - takes long to import

    _refuse_deflated(path)
    # Mapped weights take memory only where they are read, and can be given back.
    mapped = zipfile.is_zipfile(path)
    try:
        weights = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except (pickle.UnpicklingError, RuntimeError, EOFError, KeyError, ValueError) as error:
        reason = (str(error).splitlines() or ["unreadable"])[0]
        raise _refused(reason) from error
    if not isinstance(weights, dict):
        raise _refused("they are no state dict")
    _refuse_views(weights, path.stat().st_size)
    return weights


def _refuse_deflated(path: Path) -> None:
    """Let no entry of a torch file be larger than what is stored of it."""
    if not zipfile.is_zipfile(path):
        return  # of torch before 1.6, which stored tensors as they are
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
