"""The model location `riva_model_loc`, a folder or a Docker volume.

`layout` says where things lie, and `folder` does the work; `place` has it done on this machine,
`volume` inside a container; here its plain values get their types. Every path in a call is
relative to the location.
"""

from __future__ import annotations

import os
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from quickstart import __version__, backends
from quickstart.config import is_path
from quickstart.errors import ArtifactMissingError
from quickstart.store import layout, locking
from quickstart.store.layout import is_prebuilt, place_of
from quickstart.store.place import Here
from quickstart.store.values import File, Stamp, parse_files, parse_stamp

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from quickstart.backends.base import Model
    from quickstart.config import Settings
    from quickstart.store.place import Place

__all__ = ["File", "Stamp", "Store", "is_prebuilt", "locate", "place_of"]


@dataclass(frozen=True)
class Store:
    """One model location.

    Attributes:
        root: The folder; for a volume its name and a colon, as `docker cp` writes it.
        place: What reaches it.
        is_volume: Whether it is a volume.
    """

    root: Path
    place: Place = None  # type: ignore[assignment]  # for as long as __post_init__ takes
    is_volume: bool = False

    def __post_init__(self) -> None:
        """Reach a folder directly, where nothing else is said."""
        if self.place is None:
            object.__setattr__(self, "place", Here(self.root))

    def __str__(self) -> str:
        """Return the location as sentences name it."""
        return f"the volume {str(self.root)[:-1]}" if self.is_volume else str(self.root)

    @property
    def name(self) -> str:
        """The path of the folder, or the name of the volume."""
        return str(self.root).rstrip(":") if self.is_volume else str(self.root)

    @property
    def rmir(self) -> Path:
        """The folder of the archives, as sentences name it."""
        return self.root / "rmir"

    @property
    def models(self) -> Path:
        """The link to the model repository that is served, as sentences name it."""
        return self.root / "models"

    @property
    def run(self) -> Path:
        """The folder of the running server."""
        return self.root / "run"

    def repository(self, generation: str) -> Path:
        """Return the model repository of a generation."""
        return self.root / "generations" / generation / "models"

    def archives(self) -> tuple[File, ...]:
        """Return the archives that are there, with their hashes."""
        return parse_files(self.place.do("archives"))

    def check_ours(self) -> None:
        """Raise an error when `models` is something that riva-qs did not make."""
        self.place.do("current")

    def current(self) -> Stamp | None:
        """Return the stamp of the generation that is served; None before the first deploy.

        Raises:
            ArtifactMissingError: There was a deploy, and parts of it are gone.
        """
        generation = self.place.do("current")
        return self.stamp(generation) if generation else None

    def shown(self) -> str:
        """Return the name of the generation that is served, damaged or not; empty for none."""
        return str(self.place.do("current"))

    def stamp(self, generation: str) -> Stamp:
        """Return the stamp of a generation whose models are all there."""
        try:
            return parse_stamp(self.place.do("stamp", generation))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            message = f"the deployed models in {self.models} are damaged: no readable stamp"
            raise ArtifactMissingError(message, "deploy again: riva-qs init") from error

    def generations(self) -> list[str]:
        """Return the names of all generations, oldest first."""
        return list(self.place.do("generations"))

    def damage(self, generation: str) -> list[str]:
        """Return what is wrong with the files of a generation."""
        return list(self.place.do("damage", generation))

    def size(self, relative: str) -> int:
        """Return how many bytes are in a file or folder."""
        return int(self.place.do("size", relative))

    def free(self) -> int:
        """Return how many bytes are free where the location is."""
        return int(self.place.do("free"))

    def lock_file(self) -> dict[str, Any]:
        """Return the lock file of the generation that is served; empty for none."""
        return dict(self.place.do("read_json", layout.LOCK_FILE))

    @contextmanager
    def locked(self, verb: str) -> Iterator[None]:
        """Hold the lock of this location.

        Raises:
            RivaQsError: Another riva-qs holds it; the message says which.
        """
        self.place.do("lock", verb, os.getpid(), locking.PATIENCE)
        try:
            yield
        finally:
            self.place.do("unlock")

    @contextmanager
    def draft(self) -> Iterator[str]:
        """Give a folder to build a generation in; it is gone afterwards unless published.

        Who makes one holds the lock: what others there are, killed runs have left.
        """
        drafts = f"generations/{layout.PARTIAL}-"
        self.remove([name for name in self.leftovers() if name.startswith(drafts)])
        path = str(self.place.do("begin"))
        try:
            yield path
        finally:
            self.remove([path])

    def unpack(self, archive: File, draft: str) -> list[str]:
        """Unpack an archive of deployed models into a draft; return their directories.

        Raises:
            IntegrityError: It is damaged or hostile.
        """
        return list(self.place.do("unpack", place_of(archive.name), draft))

    def listing(self, draft: str, directories: Sequence[str]) -> str:
        """Return the paths of a draft's files, and the lines of their config.pbtxt."""
        return str(self.place.do("listing", draft, list(directories)))

    def publish(
        self,
        draft: str,
        rmirs: tuple[File, ...],
        engine: dict[str, str],
        models: tuple[Model, ...],
        lock: dict[str, Any] | None = None,
    ) -> Stamp:
        """Check a draft, stamp it, and make it the generation that is served, in one step.

        Raises:
            RivaQsError: The draft lacks what its report names.
        """
        stamp = Stamp("", "", __version__, engine, rmirs, models)
        return self.publish_stamped(draft, stamp, lock or {})

    def publish_stamped(self, draft: str, stamp: Stamp, lock: dict[str, Any]) -> Stamp:
        """Publish a draft under the name that its stamp has."""
        return parse_stamp(self.place.do("publish", draft, asdict(stamp), lock))

    def switch_to(self, generation: str) -> None:
        """Make `models` show a generation, in one atomic step."""
        self.place.do("switch", generation)

    def leftovers(self, *, keep: int = 1, in_use: str = "") -> list[str]:
        """Return what killed runs left, and generations beyond the newest `keep` older ones."""
        return list(self.place.do("leftovers", keep, in_use))

    def fetched(self) -> list[str]:
        """Return the archives that riva-qs put there and that are as it left them."""
        return list(self.place.do("fetched"))

    def fetched_names(self) -> set[str]:
        """Return the names of all archives that riva-qs has put there, whatever they are now."""
        return set(self.place.do("read_json", layout.FETCHED))

    def remember_fetched(self, name: str, digest: str) -> None:
        """Note that an archive will be ours: replaced when outdated, and cleaned away."""
        notes = self.place.do("read_json", layout.FETCHED)
        # Until the new file is there, and after a kill, the one before must still count as ours.
        known = dict.fromkeys([*notes.get(name, ()), digest])
        self.place.do("write_json", layout.FETCHED, {**notes, name: list(known)})

    def known_files(self, key: str) -> tuple[File, ...]:
        """Return the files that an artefact is known to have; none where that is not known."""
        return parse_files(self.place.do("read_json", layout.KNOWN).get(key, ()))

    def remember_files(self, key: str, files: Sequence[File]) -> None:
        """Note which files an artefact has, for when nobody can be asked."""
        notes = self.place.do("read_json", layout.KNOWN)
        rows = [asdict(file) for file in files]
        if notes.get(key) != rows:
            self.place.do("write_json", layout.KNOWN, {**notes, key: rows})

    def known(self) -> dict[str, Any]:
        """Return the files of every artefact that is known."""
        return dict(self.place.do("read_json", layout.KNOWN))

    def belongings(self) -> list[str]:
        """Return everything in this location that riva-qs made, but for the lock."""
        return list(self.place.do("belongings"))

    def refuse_others(self) -> None:
        """Raise OutOfResourceError where somebody else has the location in use."""
        self.place.refuse_others()

    def remove(self, relatives: list[str]) -> None:
        """Remove files, links or folders, whichever they are."""
        self.place.do("remove", relatives)

    def remove_empty(self) -> None:
        """Remove the folders of this location that hold nothing any more, and the lock."""
        self.place.do("remove_empty")


def locate(settings: Settings) -> Store:
    """Return the store that `riva_model_loc` names: a path, a volume, or a data folder."""
    location = settings.riva_model_loc
    if is_path(location):
        return Store(Path(location))
    if backends.wanted(settings)[0] == "docker":
        from quickstart.store.volume import Volume

        return Store(Path(f"{location}:"), Volume(location, settings), is_volume=True)
    data = os.environ.get("XDG_DATA_HOME") or "~/.local/share"
    return Store(Path(data).expanduser().absolute() / "riva-qs" / location)
