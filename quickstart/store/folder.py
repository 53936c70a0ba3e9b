"""What is done to a model location: a folder of this machine, or a volume inside a container.

    rmir/*.rmir               archives, fetched or the user's own
    prebuilt/*.tar.gz         archives of deployed models, as NVIDIA has them for Jetson
    generations/ID/models/    one complete model repository, with stamp.json and lock.json beside
    models -> generations/ID/models
    lock.json -> models/../lock.json
    run/                      what the running server leaves: its log, pid and lock
    .lock                     held by whoever changes any of this

A deploy happens in `generations/.partial-*` and becomes visible by two renames, the second of
which swaps the link `models`. So, whatever is killed and whenever, `models` shows one complete
generation; what a killed deploy left behind is swept by the next one.

Only the standard library is used, arguments and results are plain values, and every path in them
is relative to the location: `agent.py` does all of this inside a container.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from quickstart.errors import ArtifactMissingError, IntegrityError, RivaQsError
from quickstart.files import sha256, sync_folder
from quickstart.store import locking
from quickstart.store.contents import (
    PARTIAL,
    Plain,
    copy,
    described,
    replace_by_link,
    seal,
    wrong,
)
from quickstart.store.unpack import is_inside, unpack

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path
    from typing import BinaryIO

STAMP, LOCK_FILE = "stamp.json", "lock.json"
FETCHED, KNOWN = "rmir/.fetched.json", "rmir/.known.json"
_ARCHIVES = ("rmir/*.rmir", "prebuilt/*.tar.gz")
_NEW_LINK = ".models-"
_GONE = f"{PARTIAL}-gone-"


class Folder:
    """One model location, seen as a folder."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._lock: int | None = None

    # What is there

    def archives(self) -> list[Plain]:
        """Return the archives that are there, with their hashes."""
        paths = (path for pattern in _ARCHIVES for path in sorted(self.root.glob(pattern)))
        return [described(path, path.name) for path in paths if path.is_file()]

    def current(self) -> str:
        """Return the generation that `models` shows; empty for none.

        Raises:
            RivaQsError: `models` is something that riva-qs did not make.
        """
        models, target = self.root / "models", self._target()
        if os.path.lexists(models) and not target:
            raise RivaQsError(
                f"{models} is there and was not made by riva-qs; it is left alone",
                "move it away, or set riva_model_loc to another folder",
            )
        return target

    def generations(self) -> list[str]:
        """Return all generations that are complete by their names, oldest first."""
        paths = (self.root / "generations").glob("[!.]*")
        return sorted(path.name for path in paths if path.is_dir())

    def stamp(self, generation: str) -> Plain:
        """Return the stamp of a generation whose models are all there."""
        shown = self.root / "models"
        if generation != self._target():
            shown = self.root / "generations" / generation
        hint = "deploy again: riva-qs init"
        try:
            stamp: Plain = json.loads((self._folder(generation) / STAMP).read_text("utf-8"))
            directories = _directories(stamp["models"])
            _ = stamp["generation"], stamp["rmirs"], stamp["engine"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            message = f"the deployed models in {shown} are damaged: no readable stamp"
            raise ArtifactMissingError(message, hint) from error
        lost = [d for d in directories if not (self._folder(generation) / "models" / d).is_dir()]
        if lost:
            message = f"the deployed models in {shown} are damaged: {', '.join(lost)} is gone"
            raise ArtifactMissingError(message, hint)
        return stamp

    def damage(self, generation: str) -> list[str]:
        """Return what is wrong with the files of a generation, each hashed."""
        folder = self._folder(generation)
        try:
            files = self.stamp(generation).get("files", ())
            return [text for file in files if (text := wrong(folder / "models", file))]
        except RivaQsError as error:
            return [error.message]

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

    def fetched(self) -> list[str]:
        """Return the archives that riva-qs put there and that are as it left them."""
        notes = self.read_json(FETCHED)
        paths = {name: self.root / _place(name) for name in notes}
        return [_place(n) for n, p in paths.items() if p.is_file() and sha256(p) in notes[n]]

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
        patterns = (f"rmir/*{PARTIAL}*", f"prebuilt/*{PARTIAL}*", f"{_NEW_LINK}*", f"{PARTIAL}-*")
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

    def begin(self) -> str:
        """Make a folder to build a generation in, and return its path."""
        draft = f"generations/{PARTIAL}-{secrets.token_hex(4)}"
        (self.root / draft).mkdir(parents=True)
        return draft

    def unpack(self, archive: str, draft: str) -> list[str]:
        """Unpack an archive of deployed models into a draft; return their directories."""
        return unpack(self.root / archive, self.root / draft / "models")

    def listing(self, draft: str, directories: list[str]) -> str:
        """Return the paths of all files of a draft's models, and lines of their config.pbtxt."""
        models = self.root / draft / "models"
        lines: list[str] = []
        for path in (p for d in directories for p in sorted((models / d).rglob("*"))):
            name = path.relative_to(models).as_posix()
            lines += [name] if path.is_file() and path.stat().st_size else []
            if path.name == "config.pbtxt":
                text = path.read_text("utf-8", errors="replace")
                lines += [f"{name}:{line}" for line in text.splitlines()]
        return "\n".join(lines)

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

    def publish(self, draft: str, stamp: Plain, lock: Plain) -> Plain:
        """Check a draft, stamp it, and make it the generation that is served, in one step.

        A stamp without a name gets one. Files that other generations have too are linked.

        Raises:
            RivaQsError: The draft lacks what its report names.
        """
        folder = self.root / draft
        directories = _directories(stamp["models"])
        lost = [d for d in directories if not (folder / "models" / d).is_dir()]
        if lost or not directories:
            what = ", ".join(lost) or "any model"
            raise RivaQsError(f"the deploy ended well, but did not make {what}", "its log is above")
        stamp = {**_named(stamp), "previous": self.current(), "files": seal(folder / "models")}
        self._share(folder / "models", stamp["files"])
        (folder / STAMP).write_text(json.dumps(stamp, indent=2))
        (folder / LOCK_FILE).write_text(json.dumps(lock, indent=2, sort_keys=True))
        os.sync()
        folder.rename(self._folder(stamp["generation"]))
        self.switch(stamp["generation"])
        return stamp

    def switch(self, generation: str) -> None:
        """Make `models` show a generation, in one atomic step."""
        self.current()
        self._link(LOCK_FILE, f"models/../{LOCK_FILE}")
        self._link("models", f"generations/{generation}/models")
        sync_folder(self.root)

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

    def _folder(self, generation: str) -> Path:
        """Return the folder of a generation."""
        return self.root / "generations" / generation

    def _target(self) -> str:
        """Return the generation that `models` links to; empty for anything else."""
        try:
            parts = (self.root / "models").readlink().parts
        except OSError:
            return ""
        ours = len(parts) == 3 and parts[::2] == ("generations", "models")  # noqa: PLR2004 - ours
        return parts[1] if ours else ""

    def _relative(self, *groups: Iterable[Path]) -> list[str]:
        """Return paths as they are from the location."""
        return [path.relative_to(self.root).as_posix() for group in groups for path in group]

    def _link(self, name: str, target: str) -> None:
        """Make a link show a target, in one step; a file that is none of ours stays."""
        path = self.root / name
        if os.path.lexists(path) and not path.is_symlink():
            return
        fresh = self.root / f"{_NEW_LINK}{secrets.token_hex(4)}"
        fresh.symlink_to(target)
        fresh.replace(path)

    def _remove_folder(self, path: Path) -> None:
        """Remove a folder, even one that a killed deploy's program still writes to."""
        if path.parent.name == "generations" and not path.name.startswith(_GONE):
            path = path.rename(path.with_name(f"{_GONE}{secrets.token_hex(4)}"))
        shutil.rmtree(path)

    def _share(self, models: Path, files: list[Plain]) -> None:
        """Make files of a draft links to the same files, there or in other generations."""
        known = dict(self._shareable())
        for file in files:
            path, twin = models / file["name"], known.get((file["size"], file["sha256"]))
            # A damaged twin must not spread.
            if twin and file["size"] and not wrong(twin.parent, {**file, "name": twin.name}):
                replace_by_link(path, twin)
            known[file["size"], file["sha256"]] = path

    def _shareable(self) -> Iterator[tuple[tuple[int, str], Path]]:
        """Yield the files of all generations, by size and hash."""
        for generation in self.generations():
            with suppress(ArtifactMissingError):
                for file in self.stamp(generation).get("files", ()):
                    path = self._folder(generation) / "models" / file["name"]
                    yield (file["size"], file["sha256"]), path


def _place(name: str) -> str:
    """Return where an archive lies."""
    return f"{'prebuilt' if name.endswith('.tar.gz') else 'rmir'}/{name}"


def _upwards(path: Path) -> tuple[Path, ...]:
    """Return a path and the folders above it."""
    path = path.absolute()
    return (path, *path.parents)


def _directories(models: Iterable[Plain]) -> list[str]:
    """Return the directories that models are made of."""
    return [directory for model in models for directory in model["directories"]]


def _named(stamp: Plain) -> Plain:
    """Return a stamp with a time, and with a name that sorts behind all earlier ones."""
    if stamp.get("generation"):
        return stamp
    seconds, nanoseconds = divmod(time.time_ns(), 10**9)
    created = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(seconds))
    name = f"{created}-{nanoseconds:08x}"
    return {"schema_version": 1, **stamp, "generation": name, "created_at": created}
