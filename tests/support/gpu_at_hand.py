"""A machine with a GPU, as far as a stand-in for NVIDIA's packages goes: those of ``gpu/``."""

from __future__ import annotations

import os
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import ModuleType

_FOLDER = Path(__file__).parent / "gpu"
_PACKAGES = ("cuda", "tensorrt", "tensorrt_rtx")
# What the stand-in's GPU is, unless a test says otherwise.
CAPABILITY = "8.9"


@contextmanager
def gpu_at_hand() -> Iterator[None]:
    """Let this process, and those that it starts, find the stand-in where they look."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "path", [str(_FOLDER), *sys.path])
        patch.setenv("PATH", str(_FOLDER / "bin"), prepend=os.pathsep)
        patch.setenv("PYTHONPATH", str(_FOLDER), prepend=os.pathsep)
        hidden = _forget()
        try:
            yield
        finally:
            _forget()
            sys.modules.update(hidden)


def _forget() -> dict[str, ModuleType]:
    """Forget what is imported of the packages; return it."""
    names = [name for name in sys.modules if name.split(".")[0] in _PACKAGES]
    return {name: sys.modules.pop(name) for name in names}
