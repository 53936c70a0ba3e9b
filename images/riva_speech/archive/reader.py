"""Archive to files; nothing in an archive is trusted."""

from __future__ import annotations

import hashlib
import hmac
import tarfile
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from riva_speech import safe_yaml
from riva_speech.archive import manifest as manifests
from riva_speech.archive import packing, sealing
from riva_speech.bounded import LimitedReader
from riva_speech.errors import (
    ArtifactMissingError,
    DamagedArchiveError,
    ForeignArchiveError,
    KeyRequiredError,
    WrongKeyError,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from riva_speech.archive.manifest import Artifact, Manifest

_BLOCK = 1 << 20
_FETCH_AGAIN = "fetch or build the file again"


class ArchiveReader:
    """An open archive. Use ``open_archive`` to get one."""

    def __init__(
        self,
        path: Path,
        manifest: Manifest,
        offsets: dict[str, int],
        keys: sealing.Keys | None,
    ) -> None:
        self.path = path
        self.metadata: dict[str, Any] = manifest.metadata
        self._kind = manifest.kind
        self._offsets = offsets
        self._keys = keys
        self._artifacts = {artifact.name: artifact for artifact in manifest.artifacts}

    @property
    def names(self) -> tuple[str, ...]:
        """The artefacts, in the archive's order."""
        return tuple(self._artifacts)

    def extract(self, name: str, target: Path) -> None:
        """Write one artefact to ``target``, which appears only when its hash is right.

        Raises:
            ArtifactMissingError: The archive has no such artefact.
            DamagedArchiveError: Its bytes differ from the manifest.
        """
        if name not in self._artifacts:
            raise ArtifactMissingError(f"{self.path} holds no artefact named {name}")
        partial = target.with_name(f".{target.name}.partial")
        try:
            with partial.open("wb") as writer:
                for block in self._plain_blocks(self._artifacts[name]):
                    writer.write(block)
            partial.replace(target)
        except OSError as error:
            error.filename = error.filename or str(target)  # a full disk does not say where
            raise
        finally:
            partial.unlink(missing_ok=True)

    def _plain_blocks(self, artifact: Artifact) -> Iterator[bytes]:
        blocks = self._stored_blocks(artifact)
        if self._keys is not None:
            bound_to = f"{self._kind}/{artifact.name}"
            blocks = sealing.unseal(blocks, self._keys, artifact.nonce or "", bound_to)
        if artifact.plain_size is not None:
            blocks = packing.unpack(blocks, artifact.plain_size)
        try:
            yield from blocks
        except ValueError as error:
            raise _damaged(self.path, f"artefact {artifact.name}: {error}") from error

    def _stored_blocks(self, artifact: Artifact) -> Iterator[bytes]:
        digest, left = hashlib.sha256(), artifact.size
        with self.path.open("rb") as file:
            file.seek(self._offsets[artifact.name])
            while left and (block := file.read(min(_BLOCK, left))):
                digest.update(block)
                left -= len(block)
                yield block
        if left or not hmac.compare_digest(digest.hexdigest(), artifact.sha256):
            raise _damaged(self.path, f"artefact {artifact.name} does not match its SHA-256")


@contextmanager
def open_archive(path: Path, *, kind: str, key: str | None = None) -> Iterator[ArchiveReader]:
    """Open an archive of ``kind`` (``riva`` or ``rmir``) for reading.

    A key is ignored when the archive is not encrypted, as the official tools do.

    Raises:
        ArtifactMissingError: No such file.
        ForeignArchiveError: Not an archive of this project, or not of this kind.
        KeyRequiredError: It is encrypted and ``key`` is None.
        WrongKeyError: It is encrypted with another key.
        DamagedArchiveError: It is cut short or altered.
    """
    if not path.is_file():
        raise ArtifactMissingError(f"there is no file {path}", hint="check the path")
    manifest, offsets = _read_index(path)
    if manifest.kind != kind:
        raise ForeignArchiveError(
            f"{path} is a .{manifest.kind} archive, and a .{kind} archive is wanted here",
            hint="nemo2riva makes .riva files, riva-build turns those into .rmir files",
        )
    yield ArchiveReader(path, manifest, offsets, _unlock(path, manifest, key))


def _unlock(path: Path, manifest: Manifest, key: str | None) -> sealing.Keys | None:
    if manifest.encryption is None:
        return None
    if key is None:
        raise KeyRequiredError(
            f"{path} is encrypted, and no key was given",
            hint=f"name it as {path.name}:KEY, or set MODEL_DEPLOY_KEY",
        )
    keys = sealing.Keys.derive(key, manifest.encryption)
    if not keys.opens(manifest.encryption):
        raise WrongKeyError(
            f"{path} is encrypted with another key than the one given",
            hint="use the key that the file was made with",
        )
    if not keys.vouch_for(manifest):
        raise _damaged(path, "its manifest was altered")
    return keys


def _read_index(path: Path) -> tuple[Manifest, dict[str, int]]:
    """Read the manifest and where each artefact's bytes begin."""
    try:
        with (
            path.open("rb") as file,
            tarfile.open(fileobj=LimitedReader(file, path.stat().st_size), mode="r:") as tar,
        ):
            manifest = _read_manifest(path, tar)
            return manifest, _locate(path, tar, manifest)
    except tarfile.ReadError:
        raise _foreign(path, "it is not a tar file") from None
    except ValueError as error:  # of a limit, or of the header of a sparse file that has no numbers
        raise _damaged(path, str(error)) from error


def _read_manifest(path: Path, tar: tarfile.TarFile) -> Manifest:
    first = tar.next()
    file = tar.extractfile(first) if first is not None and first.isreg() else None
    if first is None or file is None or first.name.removeprefix("./") != manifests.MEMBER:
        raise _foreign(path, f"it does not begin with {manifests.MEMBER}")
    if first.size > manifests.MAX_BYTES:
        raise _foreign(path, "its manifest is too large")
    try:
        raw = safe_yaml.load_mapping(file.read().decode())
    except ValueError as error:
        raise _foreign(path, f"its manifest cannot be read: {error}") from None
    if raw.get("format") != manifests.FORMAT:
        raise _foreign(path, "its manifest is not of this project")
    if raw.get("format_version") not in (manifests.PLAIN_VERSION, manifests.FORMAT_VERSION):
        raise ForeignArchiveError(
            f"{path} has format version {raw.get('format_version')}, and this program reads "
            f"versions up to {manifests.FORMAT_VERSION}",
            hint="use the version of riva-qs that made it, or build it again",
        )
    try:
        return manifests.parse(raw)
    except ValueError as error:
        raise _damaged(path, f"its manifest is malformed: {error}") from error


def _locate(path: Path, tar: tarfile.TarFile, manifest: Manifest) -> dict[str, int]:
    """Find each artefact where the manifest says, whole."""
    offsets: dict[str, int] = {}
    length = path.stat().st_size
    for artifact in manifest.artifacts:
        member = _next_member(tar)
        found = member is not None and member.isreg() and (member.name, member.size)
        if found != (artifact.name, artifact.size):
            raise _damaged(path, f"artefact {artifact.name} is missing or has another size")
        assert member is not None
        offsets[artifact.name] = member.offset_data
        if member.offset_data + artifact.size > length:
            raise _damaged(path, "it is cut short")
    return offsets


def _next_member(tar: tarfile.TarFile) -> tarfile.TarInfo | None:
    try:
        return tar.next()
    except tarfile.ReadError:
        return None


def _damaged(path: Path, why: str) -> DamagedArchiveError:
    return DamagedArchiveError(f"{path} is damaged: {why}", hint=_FETCH_AGAIN)


def _foreign(path: Path, why: str) -> ForeignArchiveError:
    return ForeignArchiveError(
        f"{path} is not an archive that riva-qs made: {why}",
        hint="archives made by NVIDIA's tools are deployed by NVIDIA's image; "
        "a NeMo checkpoint is converted by nemo2riva",
    )
