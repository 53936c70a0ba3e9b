"""Running one model, whatever runs it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Session(Protocol):
    """A loaded model. Calls may come from several threads at once."""

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Run the model on named tensors and return its named outputs."""


# Loads the model of a folder of the repository.
SessionOpener: TypeAlias = Callable[[Path], Session]
