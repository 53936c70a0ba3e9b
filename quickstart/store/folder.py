"""What is done to a model location: a folder of this machine, or a volume inside a container.

`layout` says where things lie in it, `generations` has the deployed models, and here is the rest.

Only the standard library is used, arguments and results are plain values, and every path in them
is relative to the location: `agent.py` does all of this inside a container.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
from contextlib import suppress
from typing import TYPE_CHECKING

from quickstart.errors import ArtifactMissingError, IntegrityError
from quickstart.files import sha256
from quickstart.store import locking
from quickstart.store.contents import Plain, copy, described
from quickstart.store.generations import Generations
from quickstart.store.layout import (
    ARCHIVES,
    FETCHED,
    GONE,
    KNOWN,
    LOCK_FILE,
    NEW_LINK,
    PARTIAL,
    place_of,
)
from quickstart.store.unpack import is_inside

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path
    from typing import BinaryIO


class Folder(Generations):
    """One model location, seen as a folder."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self._lock: int | None = None

    # What is there

    def archives(self) -> list[Plain]:
        """Return the archives that are there, with their hashes."""
        paths = (path for pattern in ARCHIVES for path in sorted(self.root.glob(pattern)))
        return [described(path, path.name) for path in paths if path.is_file()]

    def fetched(self) -> list[str]:
        """Return the archives that riva-qs put there and that are as it left them."""
        notes = self.read_json(FETCHED)
        paths = {name: self.root / place_of(name) for name in notes}
        return [place_of(n) for n, p in paths.items() if p.is_file() and sha256(p) in notes[n]]

    def size(self, relative: str) -> int:
        """Return how many bytes are in a file or folder; links count nothing."""
        path = self.root / relative
        paths = [path, *path.rglob("*")] if path.is_dir() and not path.is_symlink() else [path]
        files = (p.lstat() for p in paths if p.is_file() and not p.is_symlink())
        # What is linked twice is on the disk once.
        return sum({(s.st_dev, s.st_ino): s.st_size for s in files}.values())

    def free(self) -> int:
        """Return how many bytes are free where the location is or will be."""
        return shutil.disk_usage(next(p for p in _upwards(self.root) if p.exists())).free

    def read_json(self, relative: str) -> Plain:
        """Return a JSON object of the location; an empty one where there is none."""
        try:
            data = json.loads((self.root / relative).read_text("utf-8"))
        except (OSError, ValueError):
            return {}
        return data if isinstance(data, dict) else {}

    def leftovers(self, keep: int, in_use: str) -> list[str]:
        """Return what killed runs left, and generations beyond the newest `keep` older ones."""
        current = self._target()
        previous = ""
        with suppress(ArtifactMissingError):
            previous = self.stamp(current).get("previous", "") if current else ""
        older = [name for name in self.generations() if name != current]
        older.sort(key=lambda name: (name == previous, name), reverse=True)
        wanted = {current, in_use, *older[:keep]}
        folders = (self.root / "generations").glob("*")
        gone = [path for path in folders if path.name not in wanted]
        patterns = (f"rmir/*{PARTIAL}*", f"prebuilt/*{PARTIAL}*", f"{NEW_LINK}*", f"{PARTIAL}-*")
        return self._relative(gone, *(self.root.glob(pattern) for pattern in patterns))

    def belongings(self) -> list[str]:
        """Return everything in this location that riva-qs made, but for the lock."""
        links = ["models"] if self._target() else []
        made = [*links, "generations", "run", *self.fetched(), FETCHED, KNOWN]
        made += [LOCK_FILE] if (self.root / LOCK_FILE).is_symlink() else []
        everything = dict.fromkeys([*made, *self.leftovers(0, self._target())])
        return [name for name in everything if os.path.lexists(self.root / name)]

    # Changes

    def lock(self, verb: str, pid: int, patience: float) -> None:
        """Take the lock of this location, which is made where it is not there."""
        self.root.mkdir(parents=True, exist_ok=True)
        self._lock = locking.take(self.root / ".lock", verb, pid, patience)

    def unlock(self) -> None:
        """Let go of the lock."""
        if self._lock is not None:
            os.close(self._lock)
        self._lock = None

    def write_json(self, relative: str, data: Plain) -> None:
        """Write a JSON object in one step."""
        path = self.root / relative
        path.parent.mkdir(exist_ok=True)
        fresh = path.with_name(path.name + PARTIAL)
        fresh.write_text(json.dumps(data, indent=2, sort_keys=True))
        fresh.replace(path)

    def receive(self, relative: str, size: int, digest: str, stream: BinaryIO) -> None:
        """Write `size` bytes of a stream to a file, which appears only when its hash is right."""
        if not is_inside(relative):
            raise IntegrityError(f"{relative!r} leads out of the model location")
        path = self.root / relative
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(path.name + PARTIAL)
        got = copy(stream, size, partial)
        if got != digest:
            partial.unlink()
            message = f"{relative} arrived with SHA-256 {got[:16]}... instead of {digest[:16]}..."
            raise IntegrityError(message, "try again")
        partial.replace(path)

    def remove(self, relatives: list[str]) -> None:
        """Remove files, links or folders, whichever they are."""
        for relative in relatives:
            path = self.root / relative
            if path.is_dir() and not path.is_symlink():
                self._remove_folder(path)
            else:
                path.unlink(missing_ok=True)

    def remove_empty(self) -> bool:
        """Remove the folders that hold nothing any more, and the lock; say whether all is gone."""
        for name in ("rmir", "prebuilt"):
            with suppress(OSError):
                (self.root / name).rmdir()
        (self.root / ".lock").unlink(missing_ok=True)
        empty = not any(self.root.iterdir())
        with suppress(OSError):
            self.root.rmdir()
        return empty

    # How

    def _relative(self, *groups: Iterable[Path]) -> list[str]:
        """Return paths as they are from the location."""
        return [path.relative_to(self.root).as_posix() for group in groups for path in group]

    def _remove_folder(self, path: Path) -> None:
        """Remove a folder, even one that a killed deploy's program still writes to."""
        if path.parent.name == "generations" and not path.name.startswith(GONE):
            path = path.rename(path.with_name(f"{GONE}{secrets.token_hex(4)}"))
        shutil.rmtree(path)


def _upwards(path: Path) -> tuple[Path, ...]:
    """Return a path and the folders above it."""
    path = path.absolute()
    return (path, *path.parents)
