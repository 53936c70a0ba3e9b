"""What reaches a model location, and a location that is a folder of this machine."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any, Protocol

from quickstart.store.folder import Folder

if TYPE_CHECKING:
    from pathlib import Path
    from typing import BinaryIO


class Place(Protocol):
    """Where a location is: does what `Folder` can do, and moves files between there and here."""

    def do(self, name: str, *arguments: Any) -> Any:  # noqa: ANN401 - JSON
        """Do what a method of `Folder` does, and return what it returns."""
        ...

    def bring(self, path: Path, relative: str, size: int, digest: str) -> None:
        """Move a verified file of this machine into the location."""
        ...

    def read(self, relative: str, sink: BinaryIO) -> None:
        """Copy a file of the location to a stream."""
        ...

    def landing(self, relative: str, digest: str) -> Path:
        """Return where on this machine a file arrives before it is brought into the location."""
        ...

    def refuse_others(self) -> None:
        """Raise OutOfResourceError where somebody else has the location in use."""
        ...


class Here:
    """A location that is a folder of this machine."""

    def __init__(self, root: Path) -> None:
        self._folder = Folder(root)

    def do(self, name: str, *arguments: Any) -> Any:  # noqa: ANN401 - JSON
        """Do what a method of `Folder` does, and return what it returns."""
        return getattr(self._folder, name)(*arguments)

    def bring(self, path: Path, relative: str, _size: int, _digest: str) -> None:
        """Move a verified file to its place; one that landed there is there already."""
        target = self._folder.root / relative
        if path != target:
            target.parent.mkdir(parents=True, exist_ok=True)
            path.replace(target)

    def read(self, relative: str, sink: BinaryIO) -> None:
        """Copy a file of the location to a stream."""
        with (self._folder.root / relative).open("rb") as stream:
            shutil.copyfileobj(stream, sink, 1 << 20)

    def landing(self, relative: str, _digest: str) -> Path:
        """Return the file's own place: a transfer gives it its name when all is verified."""
        target = self._folder.root / relative
        target.parent.mkdir(exist_ok=True)
        return target

    def refuse_others(self) -> None:
        """Do nothing: what uses files of a folder cannot be known."""
