"""The folder `riva_model_loc`: archives, generations of deployed models, and the lock.

    rmir/*.rmir               archives, fetched or the user's own
    generations/ID/models/    one complete model repository, with stamp.json beside it
    models -> generations/ID/models
    run/                      what the running server leaves: its log, pid and lock
    .lock                     held by whoever changes any of this

A deploy happens in `generations/.partial-*` and becomes visible by two renames, the second of
which swaps the link `models`. So, whatever is killed and whenever, `models` shows one complete
generation; what a killed deploy left behind is swept by the next one.
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import shutil
import time
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from quickstart import __version__, platforms
from quickstart.backends.base import Model, parse_model
from quickstart.config import is_path
from quickstart.errors import ArtifactMissingError, RivaQsError
from quickstart.partial import PARTIAL
from quickstart.transfer import sha256, sync_folder

if TYPE_CHECKING:
    from collections.abc import Iterator

    from quickstart.config import Settings

LOCK_PATIENCE = 5.0
_STAMP = "stamp.json"
_FETCHED = ".fetched.json"
_NEW_LINK = ".models-"


@dataclass(frozen=True)
class Rmir:
    """One archive in rmir/."""

    name: str
    size: int
    sha256: str


@dataclass(frozen=True)
class Stamp:
    """What a generation was made of, and by what."""

    generation: str
    created_at: str
    riva_qs: str
    engine: dict[str, str]
    rmirs: tuple[Rmir, ...]
    models: tuple[Model, ...]
    previous: str = ""


@dataclass(frozen=True)
class Store:
    """One model location on this machine's disk."""

    root: Path

    @property
    def rmir(self) -> Path:
        """The folder of the archives."""
        return self.root / "rmir"

    @property
    def models(self) -> Path:
        """The link to the model repository that is served."""
        return self.root / "models"

    @property
    def generations(self) -> Path:
        """The folder of all generations."""
        return self.root / "generations"

    @property
    def run(self) -> Path:
        """The folder of the running server."""
        return self.root / "run"

    def rmirs(self) -> tuple[Rmir, ...]:
        """Return the archives that are there, with their hashes."""
        paths = sorted(self.rmir.glob("*.rmir"))
        return tuple(Rmir(path.name, path.stat().st_size, sha256(path)) for path in paths)

    def repository(self, generation: str) -> Path:
        """Return the model repository of a generation."""
        return self.generations / generation / "models"

    def check_ours(self) -> None:
        """Raise an error when `models` is something that riva-qs did not make."""
        if os.path.lexists(self.models) and not self._target():
            raise RivaQsError(
                f"{self.models} is there and was not made by riva-qs; it is left alone",
                "move it away, or set riva_model_loc to another folder",
            )

    def current(self) -> Stamp | None:
        """Return the stamp of the generation that is served; None before the first deploy.

        Raises:
            ArtifactMissingError: There was a deploy, and parts of it are gone.
        """
        self.check_ours()
        generation = self._target()
        return self.stamp(generation) if generation else None

    def stamp(self, generation: str) -> Stamp:
        """Return the stamp of a generation whose models are all there."""
        try:
            stamp = _parse_stamp((self.generations / generation / _STAMP).read_text("utf-8"))
        except (OSError, ValueError, KeyError, TypeError) as error:
            message = f"the deployed models in {self.models} are damaged: no readable stamp"
            raise ArtifactMissingError(message, "deploy again: riva-qs init") from error
        lost = _missing_directories(self.repository(generation), stamp.models)
        if lost:
            message = f"the deployed models in {self.models} are damaged: {', '.join(lost)} is gone"
            raise ArtifactMissingError(message, "deploy again: riva-qs init")
        return stamp

    def _target(self) -> str:
        """Return the generation that `models` links to; empty for anything else."""
        try:
            parts = self.models.readlink().parts
        except OSError:
            return ""
        ours = len(parts) == 3 and parts[::2] == ("generations", "models")  # noqa: PLR2004 - ours
        return parts[1] if ours else ""

    @contextmanager
    def locked(self, verb: str) -> Iterator[None]:
        """Hold the lock of this location.

        Raises:
            RivaQsError: Another riva-qs holds it; the message says which.
        """
        self.root.mkdir(parents=True, exist_ok=True)
        descriptor = _take(self.root / ".lock", time.monotonic() + LOCK_PATIENCE)
        try:
            os.truncate(descriptor, 0)
            os.pwrite(descriptor, json.dumps({"pid": os.getpid(), "verb": verb}).encode(), 0)
            yield
        finally:
            os.close(descriptor)

    @contextmanager
    def draft(self) -> Iterator[Path]:
        """Give a folder to build a generation in; it is gone afterwards unless published."""
        folder = self.generations / f"{PARTIAL}-{os.getpid()}"
        folder.mkdir(parents=True)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def publish(
        self,
        draft: Path,
        rmirs: tuple[Rmir, ...],
        engine: dict[str, str],
        models: tuple[Model, ...],
    ) -> Stamp:
        """Check a draft, stamp it, and make it the generation that is served, in one step.

        Raises:
            RivaQsError: The draft lacks what its report names.
        """
        lost = _missing_directories(draft / "models", models)
        if lost or not models:
            what = ", ".join(lost) or "any model"
            raise RivaQsError(f"the deploy ended well, but did not make {what}", "its log is above")
        created = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
        name = f"{created}-{secrets.token_hex(4)}"
        stamp = Stamp(name, created, __version__, engine, rmirs, models, self._target())
        (draft / _STAMP).write_text(json.dumps({"schema_version": 1, **asdict(stamp)}, indent=2))
        os.sync()
        draft.rename(self.generations / name)
        self.switch_to(name)
        return stamp

    def switch_to(self, generation: str) -> None:
        """Make `models` show a generation, in one atomic step."""
        self.check_ours()
        link = self.root / f"{_NEW_LINK}{os.getpid()}"
        link.unlink(missing_ok=True)
        link.symlink_to(Path("generations", generation, "models"))
        link.replace(self.models)
        sync_folder(self.root)

    def leftovers(self, *, in_use: str = "") -> list[Path]:
        """Return what killed runs left, and generations older than the previous one."""
        current = self._target()
        keep = {current, in_use}
        with suppress(ArtifactMissingError):
            keep.add(self.stamp(current).previous if current else "")
        old = (path for path in self.generations.glob("*") if path.name not in keep)
        return [*old, *self.rmir.glob(f"*{PARTIAL}"), *self.root.glob(f"{_NEW_LINK}*")]

    def fetched(self) -> list[Path]:
        """Return the archives in rmir/ that riva-qs put there and that are as it left them."""
        notes = {self.rmir / name: digests for name, digests in self._notes().items()}
        return [path for path, known in notes.items() if path.is_file() and sha256(path) in known]

    def remember_fetched(self, name: str, digest: str) -> None:
        """Note that an archive in rmir/ will be ours: replaced when outdated, and cleaned away."""
        notes = self._notes()
        # Until the new file is there, and after a kill, the one before must still count as ours.
        known = [*notes.get(name, ()), digest]
        fresh = self.rmir / (_FETCHED + PARTIAL)
        fresh.write_text(json.dumps({**notes, name: list(dict.fromkeys(known))}, indent=2))
        fresh.replace(self.rmir / _FETCHED)

    def _notes(self) -> dict[str, list[str]]:
        """Return the names, and all hashes, of what riva-qs has put into rmir/."""
        try:
            notes: Any = json.loads((self.rmir / _FETCHED).read_text("utf-8"))
        except (OSError, ValueError):
            return {}
        return notes if isinstance(notes, dict) else {}

    def belongings(self) -> list[Path]:
        """Return everything in this location that riva-qs made, but for the lock."""
        link = [self.models] if self._target() else []
        made = [*link, self.generations, self.run, *self.fetched(), self.rmir / _FETCHED]
        return [path for path in (*made, *self.leftovers()) if os.path.lexists(path)]

    def remove_empty(self) -> None:
        """Remove the folders of this location that hold nothing any more, and the lock."""
        with suppress(OSError):
            self.rmir.rmdir()
        (self.root / ".lock").unlink(missing_ok=True)
        with suppress(OSError):
            self.root.rmdir()


def locate(settings: Settings) -> Store:
    """Return the store that `riva_model_loc` names: a path, or a name in the data folder."""
    location = settings.riva_model_loc
    if is_path(location):
        return Store(Path(location))
    data = os.environ.get("XDG_DATA_HOME") or "~/.local/share"
    return Store(Path(data).expanduser().absolute() / "riva-qs" / location)


def remove(path: Path) -> None:
    """Remove a file, a link or a folder, whichever it is."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def size_of(path: Path) -> int:
    """Return how many bytes are in a file or folder; links count nothing."""
    paths = [path, *path.rglob("*")] if path.is_dir() and not path.is_symlink() else [path]
    return sum(p.lstat().st_size for p in paths if p.is_file() and not p.is_symlink())


def _missing_directories(repository: Path, models: tuple[Model, ...]) -> list[str]:
    """Return the directories that models name and the repository lacks."""
    named = (directory for model in models for directory in model.directories)
    return [directory for directory in named if not (repository / directory).is_dir()]


def _parse_stamp(text: str) -> Stamp:
    """Return a stamp from its JSON."""
    data: dict[str, Any] = json.loads(text)
    data["rmirs"] = tuple(Rmir(**row) for row in data["rmirs"])
    data["models"] = tuple(map(parse_model, data["models"]))
    return Stamp(**{name: data[name] for name in Stamp.__dataclass_fields__})


def _take(path: Path, deadline: float) -> int:
    """Return a descriptor that holds the lock in `path`."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_still(path, descriptor):
                return descriptor
        except BlockingIOError:
            if time.monotonic() > deadline:
                os.close(descriptor)
                raise _busy(path) from None
            time.sleep(0.1)
        os.close(descriptor)


def _is_still(path: Path, descriptor: int) -> bool:
    """Say whether a descriptor is of the file now at `path`: `clean` may have removed it."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def _busy(path: Path) -> RivaQsError:
    """Return the error that says who holds the lock."""
    owner = platforms.holder(path)
    who = str(owner) if owner else "another process"
    with suppress(OSError, ValueError, KeyError):
        noted = json.loads(path.read_text("utf-8"))
        if owner is None or owner.pid == noted["pid"]:
            who = f"riva-qs {noted['verb']} (pid {noted['pid']})"
    message = f"{who} is at work in {path.parent}"
    return RivaQsError(message, "wait until it is done, or stop it")
