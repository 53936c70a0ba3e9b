"""What pipelines of one RMIR have in common is loaded once: language models, lexicons, grammars."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Sequence
    from pathlib import Path

_T = TypeVar("_T")


class Shared:
    """Things by the files that they were read from."""

    def __init__(self) -> None:
        self._found: dict[Hashable, Any] = {}

    def once(self, files: Sequence[Path], make: Callable[[], _T], *others: Hashable) -> _T:
        """Return what ``make`` made of the same files, and of the same ``others`` beside them."""
        key = (*others, *map(_identity, files))
        if key not in self._found:
            self._found[key] = make()
        found: _T = self._found[key]
        return found


def _identity(path: Path) -> tuple[int, int] | None:
    """Return what two names of one file have in common."""
    if not path.is_file():
        return None
    status = path.stat()
    return status.st_dev, status.st_ino
