"""Whether what `init` is about to make will fit: disk and memory needed, against what is there.

The factors are estimates on the safe side; docs/operations.md says where they come from.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from quickstart import platforms
from quickstart.errors import OutOfResourceError
from quickstart.transfer import size_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from quickstart.config import Settings
    from quickstart.store import File, Store

# A deployed model, with the graphs that the engine optimises, beside its archive.
DEPLOYED_FACTOR = 2
# A model in memory while it serves, and what a server needs before its first model.
MEMORY_FACTOR, MEMORY_BASE = 3, 256 << 20
# NVIDIA's support matrices of 2.15 to 2.24, the larger numbers, for one model of a service.
_MB = 1_000_000
RIVA_MEMORY = {"asr": 6700 * _MB, "nlp": 500 * _MB, "tts": 3500 * _MB, "nmt": 8500 * _MB}
# What the images take when they are unpacked: 2.19 for servers and for Jetson.
RIVA_IMAGE = 20_000 * _MB
SPARE = 64 << 20


@dataclass(frozen=True)
class Need:
    """So many bytes of something, and how many there are; None where that cannot be known.

    Attributes:
        what: "disk" or "memory".
        where: Which disk or memory.
        needed: The bytes that are needed.
        free: The bytes that are free, of memory all that the machine has.
    """

    what: str
    where: str
    needed: int
    free: int | None

    @property
    def fits(self) -> bool:
        """Whether there is enough, or nobody knows."""
        return self.free is None or self.needed <= self.free

    def __str__(self) -> str:
        """Return the need as a sentence."""
        there = "what is there is not known" if self.free is None else f"{size_text(self.free)} are"
        verdict = "" if self.fits else ": that does not fit"
        ending = "" if self.free is None else " there"
        return f"{size_text(self.needed)} of {self.what} in {self.where}; {there}{ending}{verdict}"

    def as_data(self) -> dict[str, Any]:
        """Return the need as JSON data."""
        return {**vars(self), "fits": self.fits}


def disk(
    here: Store, download: int, archives: Sequence[File], *, deploys: bool, pulls: bool
) -> tuple[Need, ...]:
    """Return the disk that fetching and deploying need, one row a disk."""
    made = download + (DEPLOYED_FACTOR * sum(a.size for a in archives) if deploys else 0)
    wants: dict[str, int] = {}
    places: dict[str, int | None] = {}
    if made:
        wants[str(here)], places[str(here)] = made + SPARE, _free_of(here)
    if here.is_volume and download:
        from quickstart.store.staging import staging

        wants[str(staging())], places[str(staging())] = download + SPARE, _free(staging())
    if pulls:
        wants["Docker's folder"], places["Docker's folder"] = RIVA_IMAGE, _docker_free()
    return tuple(Need("disk", where, needed, places[where]) for where, needed in wants.items())


def copies(here: Store, size: int) -> Need:
    """Return the disk that files need which are copied into a location."""
    return Need("disk", str(here), size + SPARE, _free_of(here))


def staged(size: int) -> Need:
    """Return the disk of this machine that files need which wait for their way into a volume."""
    from quickstart.store.staging import staging

    return Need("disk", str(staging()), size + SPARE, _free(staging()))


def memory(settings: Settings, services: Iterable[str], archives: Sequence[File]) -> Need:
    """Return the memory that serving needs.

    NVIDIA's models need it on the GPU, which on Jetson is the machine's own.
    """
    total = platforms.memory()
    if settings.image != "riva":
        needed = MEMORY_BASE + MEMORY_FACTOR * sum(archive.size for archive in archives)
        return Need("memory", "this machine", needed, total)
    needed = sum(RIVA_MEMORY.get(service, 0) for service in services)
    tegra = settings.riva_target_gpu_family == "tegra"
    where = "this machine, shared with its GPU" if tegra else "the GPU"
    return Need("memory", where, needed, total if tegra else None)


def check(needs: Iterable[Need]) -> None:
    """Raise OutOfResourceError when something does not fit."""
    short = [need for need in needs if not need.fits]
    if short:
        raise OutOfResourceError(
            "this does not fit, and nothing was fetched: " + "; ".join(map(str, short)),
            "free some space (riva-qs gc), set riva_model_loc to a larger disk, or ask for less",
        )


def _free_of(here: Store) -> int | None:
    """Return how much is free where a location is, or where Docker will make it."""
    from quickstart.backends.engine import connect

    if here.is_volume and not connect().volume_exists(here.name):
        return _docker_free()
    return here.free()


def _docker_free() -> int | None:
    """Return how much is free where Docker keeps its data; None where that is another machine."""
    from quickstart.backends.engine import connect

    root = Path(connect().data_root() or "/nonexistent")
    return shutil.disk_usage(root).free if root.is_dir() else None


def _free(folder: Path) -> int:
    """Return how much is free where a folder is or will be."""
    there = next(path for path in (folder, *folder.parents) if path.exists())
    return shutil.disk_usage(there).free
