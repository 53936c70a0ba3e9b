"""The lock file: all that decides what a deploy makes, so that it can be made once more."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from quickstart.errors import ArtifactMissingError, IntegrityError
from quickstart.sources import SourceFile
from quickstart.store.values import parse_files

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from quickstart.catalog import Artifact
    from quickstart.lifecycle import Suite
    from quickstart.store import File

LOCK_SCHEMA = 1


def check_lock_file(lock: dict[str, Any], where: str) -> dict[str, Any]:
    """Return a lock file, checked to be one.

    Raises:
        ArtifactMissingError: There is none.
        IntegrityError: It is damaged, or made by a newer riva-qs.
    """
    if not lock:
        raise ArtifactMissingError(f"there is no lock file in {where}", "riva-qs init makes one")
    if lock.get("schema_version") != LOCK_SCHEMA:
        version = lock.get("schema_version")
        message = f"the lock file in {where} has schema_version {version!r}, not {LOCK_SCHEMA}"
        raise IntegrityError(message, "a newer riva-qs may know it")
    try:
        parse_files(lock["archives"])
        [parse_files(row["files"]) for row in lock["artifacts"]]
        [(row["reference"], row["version"]) for row in lock["artifacts"]]
        dict(lock["engine"])
    except (KeyError, TypeError, ValueError) as error:
        message = f"the lock file in {where} is damaged: {error!r}"
        raise IntegrityError(message, "make it anew: riva-qs init") from error
    return lock


def check_lock(lock: dict[str, Any], artifacts: Sequence[Artifact], engine: dict[str, str]) -> None:
    """Raise an error when the settings or this installation are not those of a lock file."""
    locked = sorted(f"{row['reference']}#{row['version']}" for row in lock["artifacts"])
    wanted = sorted(map(artifact_key, artifacts))
    if locked != wanted:
        raise unlike("artefacts", locked, wanted)
    if engine and lock["engine"] != engine:
        raise unlike("engine", lock["engine"], engine)


def locked_files(lock: dict[str, Any], artifact: Artifact) -> tuple[SourceFile, ...]:
    """Return the files that a lock file names for an artefact."""
    rows = {f"{row['reference']}#{row['version']}": row["files"] for row in lock["artifacts"]}
    return as_source_files(parse_files(rows[artifact_key(artifact)]))


def unlike(what: str, locked: object, found: object) -> IntegrityError:
    """Return the error for what is not as the lock file says."""
    message = f"the lock file cannot be reproduced: its {what} are {locked}, and here {found}"
    return IntegrityError(message, "use the same settings and versions, or init without --locked")


def read_lock(suite: Suite, file: Path | None) -> dict[str, Any]:
    """Return the lock file of a path, or of the location."""
    if file is None:
        return check_lock_file(suite.store.lock_file(), str(suite.store))
    try:
        data = json.loads(file.read_text("utf-8"))
    except (ValueError, RecursionError) as error:
        raise IntegrityError(
            f"{file} is no lock file: {error}", "riva-qs init makes one"
        ) from error
    return check_lock_file(data if isinstance(data, dict) else {}, str(file))


def artifact_key(artifact: Artifact) -> str:
    """Return what an artefact's files are noted under."""
    return f"{artifact.reference}#{artifact.version}"


def as_source_files(files: Sequence[File]) -> tuple[SourceFile, ...]:
    """Return noted files as a source gives them."""
    return tuple(SourceFile(f.name, f.size, f.sha256) for f in files)
