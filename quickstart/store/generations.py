"""Generations: complete model repositories, of which the link `models` shows one.

A deploy happens in `generations/.partial-*` and becomes visible by two renames, the second of
which swaps the link. So, whatever is killed and whenever, `models` shows one complete generation;
what a killed deploy left behind is swept by the next one.
"""

from __future__ import annotations

import json
import os
import secrets
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from quickstart.errors import ArtifactMissingError, RivaQsError
from quickstart.files import sync_folder
from quickstart.store.contents import Plain, replace_by_link, seal, wrong
from quickstart.store.layout import LOCK_FILE, NEW_LINK, PARTIAL, STAMP
from quickstart.store.unpack import unpack

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path


class Generations:
    """The generations of one model location, which is a folder here."""

    def __init__(self, root: Path) -> None:
        self.root = root

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

    def _link(self, name: str, target: str) -> None:
        """Make a link show a target, in one step; a file that is none of ours stays."""
        path = self.root / name
        if os.path.lexists(path) and not path.is_symlink():
            return
        fresh = self.root / f"{NEW_LINK}{secrets.token_hex(4)}"
        fresh.symlink_to(target)
        fresh.replace(path)

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
