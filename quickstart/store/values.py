"""What a model location holds, as values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from quickstart.backends.base import Model, parse_model

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class File:
    """One file: an archive, or a part of a generation by its path there."""

    name: str
    size: int
    sha256: str


@dataclass(frozen=True)
class Stamp:
    """What a generation was made of, by what, and which files it has."""

    generation: str
    created_at: str
    riva_qs: str
    engine: dict[str, str]
    rmirs: tuple[File, ...]
    models: tuple[Model, ...]
    previous: str = ""
    files: tuple[File, ...] = ()


def parse_stamp(data: dict[str, Any]) -> Stamp:
    """Return a stamp from its JSON."""
    return Stamp(
        **{name: data[name] for name in ("generation", "created_at", "riva_qs", "engine")},
        rmirs=parse_files(data["rmirs"]),
        models=tuple(map(parse_model, data["models"])),
        previous=data.get("previous", ""),
        files=parse_files(data.get("files", ())),
    )


def parse_files(rows: Any) -> tuple[File, ...]:  # noqa: ANN401 - JSON
    """Return files from their JSON."""
    files = tuple(File(row["name"], row["size"], row["sha256"]) for row in rows)
    if not all(isinstance(file.name, str) for file in files):
        raise TypeError("a file's name is no text")
    return files
