"""Files to archive."""

from __future__ import annotations

import hashlib
import io
import tarfile
import tempfile
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from riva_speech.archive import manifest, packing, sealing
from riva_speech.archive.manifest import Artifact, Manifest
from riva_speech.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

_BLOCK = 1 << 20


def write_archive(
    path: Path,
    *,
    kind: str,
    metadata: dict[str, Any],
    sources: Mapping[str, Path],
    key: str | None = None,
    force: bool = False,
) -> None:
    """Write an archive from files; ``sources`` maps artefact names to them.

    The file appears under ``path`` only when it is complete.

    Raises:
        UsageError: ``path`` exists and ``force`` is not set, or its folder does not.
    """
    refuse_overwrite(path, force=force)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as folder:
        contents, stored = _prepare(kind, metadata, sources, key, Path(folder))
        partial = Path(folder) / "archive"
        with tarfile.open(partial, "w:", format=tarfile.PAX_FORMAT) as tar:
            text = contents.to_yaml()
            _add(tar, manifest.MEMBER, io.BytesIO(text), len(text))
            for artifact in contents.artifacts:
                with stored[artifact.name].open("rb") as source:
                    _add(tar, artifact.name, source, artifact.size)
        partial.replace(path)


def refuse_overwrite(path: Path, *, force: bool) -> None:
    """Check that ``path`` may be written.

    Raises:
        UsageError: It exists and ``force`` is not set, it is a folder, or its folder is missing.
    """
    if path.is_dir():
        raise UsageError(f"cannot write {path}: it is a folder", hint="name a file")
    if not path.parent.is_dir():
        raise UsageError(f"cannot write {path}: its folder does not exist", hint="create it first")
    if path.exists() and not force:
        raise UsageError(f"{path} already exists", hint="pass -f or --force to replace it")


def _prepare(
    kind: str, metadata: dict[str, Any], sources: Mapping[str, Path], key: str | None, folder: Path
) -> tuple[Manifest, dict[str, Path]]:
    """Deflate, seal with a key, and hash the sources; return the manifest and what to store."""
    encryption = sealing.new_encryption() if key else None
    keys = sealing.Keys.derive(key, encryption) if key and encryption else None
    artifacts, stored = [], dict(sources)
    for index, (name, source) in enumerate(sources.items()):
        nonce = compression = plain_size = None
        if packing.pack(source, folder / f"packed-{index}"):
            compression, plain_size = packing.DEFLATE, source.stat().st_size
            stored[name] = folder / f"packed-{index}"
        if keys:
            sealed = folder / f"sealed-{index}"
            nonce = sealing.seal(stored[name], sealed, keys, f"{kind}/{name}")
            stored[name] = sealed
        file = stored[name]
        artifacts.append(
            Artifact(name, file.stat().st_size, _sha256(file), nonce, compression, plain_size)
        )
    contents = Manifest(kind, metadata, tuple(artifacts), encryption)
    return (keys.sign(contents) if keys else contents), stored


def _add(tar: tarfile.TarFile, name: str, source: IO[bytes], size: int) -> None:
    """Add one member; times and owners are left out, so equal content makes equal archives."""
    info = tarfile.TarInfo(name)
    info.size = size
    info.mode = 0o644
    tar.addfile(info, source)


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()
