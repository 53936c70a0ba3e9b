"""``.riva`` and ``.rmir`` archives: a manifest, artefacts, hashes, and optional encryption.

An archive is an uncompressed tar. Its first member is ``manifest.yaml``; the artefacts follow in
the manifest's order. The whole format is described in ``docs/archives.md``. NVIDIA's own archives
have the same suffixes and another, unpublished layout: they are recognised and refused by name.

Encryption: scrypt turns the passphrase into one key for AES-256-GCM, which seals each artefact
under its own nonce, and one for HMAC-SHA-256, which tells a wrong key from a damaged file and
covers the manifest.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import io
import json
import os
import re
import secrets
import tarfile
import tempfile
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import yaml

from riva_speech import safe_yaml
from riva_speech.errors import (
    ArtifactMissingError,
    DamagedArchiveError,
    ForeignArchiveError,
    KeyRequiredError,
    UsageError,
    WrongKeyError,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

FORMAT = "riva-qs"
FORMAT_VERSION = 1
MANIFEST = "manifest.yaml"

_BLOCK = 1 << 20
_MAX_MANIFEST_BYTES = 4 << 20
_MAX_ARTIFACTS = 1024
_TAG_BYTES = 16
_ARTIFACT_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,199}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_KEY_CHECK = re.compile(r"[0-9a-f]{32}")
# scrypt's parameters are read from the file, so a hostile one must not choose how much memory
# its opening takes: 2**15 with r = 8 is 32 MiB.
_SCRYPT = {"n": 1 << 15, "r": 8, "p": 1}
_SCRYPT_MAX_N = 1 << 17


@dataclass(frozen=True)
class Artifact:
    """One file of an archive, as it is stored.

    ``size`` (bytes) and ``sha256`` (hex) are those of the stored bytes, so damage is found without
    a key. ``nonce`` (base64) is set when the artefact is sealed.
    """

    name: str
    size: int
    sha256: str
    nonce: str | None = None


@dataclass(frozen=True)
class Encryption:
    """How an archive is sealed: parameters and check values, nothing secret."""

    salt: str
    n: int = _SCRYPT["n"]
    r: int = _SCRYPT["r"]
    p: int = _SCRYPT["p"]
    key_check: str = ""
    manifest_mac: str = ""
    cipher: str = "AES-256-GCM"
    kdf: str = "scrypt"


@dataclass(frozen=True)
class Manifest:
    """An archive's table of contents.

    ``kind`` is ``riva`` or ``rmir``; ``metadata`` holds plain YAML values and belongs to whoever
    wrote the archive.
    """

    kind: str
    metadata: dict[str, Any]
    artifacts: tuple[Artifact, ...]
    encryption: Encryption | None = None
    format: str = FORMAT
    format_version: int = FORMAT_VERSION

    def as_dict(self) -> dict[str, Any]:
        """Return the manifest as it is written to YAML."""
        return {
            "format": self.format,
            "format_version": self.format_version,
            "kind": self.kind,
            "encryption": asdict(self.encryption) if self.encryption else None,
            "metadata": self.metadata,
            "artifacts": [
                {k: v for k, v in asdict(artifact).items() if v is not None}
                for artifact in self.artifacts
            ],
        }


@dataclass(frozen=True)
class _Keys:
    """What scrypt makes of a passphrase: a sealing key and an authentication key."""

    seal: bytes = field(repr=False)
    authenticate: bytes = field(repr=False)

    @classmethod
    def derive(cls, passphrase: str, encryption: Encryption) -> _Keys:
        from cryptography.hazmat.primitives.kdf.scrypt import Scrypt  # noqa: PLC0415 - keyed only

        kdf = Scrypt(
            salt=base64.b64decode(encryption.salt),
            length=64,
            n=encryption.n,
            r=encryption.r,
            p=encryption.p,
        )
        raw = kdf.derive(passphrase.encode())
        return cls(seal=raw[:32], authenticate=raw[32:])

    def mac(self, data: bytes) -> str:
        return hmac.new(self.authenticate, data, hashlib.sha256).hexdigest()

    @property
    def check(self) -> str:
        return self.mac(b"riva-qs key check")[:32]


def split_key(spec: str) -> tuple[Path, str | None]:
    """Split ``file[:key]``, the official form: the key is what follows the last colon.

    A colon that belongs to an existing file's name is not a separator.
    """
    if ":" not in spec or Path(spec).exists():
        return Path(spec), None
    path, key = spec.rsplit(":", 1)
    return Path(path), key or None


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
        partial = Path(folder) / "archive"
        manifest, stored = _prepare(kind, metadata, sources, key, Path(folder))
        with tarfile.open(partial, "w:", format=tarfile.PAX_FORMAT) as tar:
            text = yaml.safe_dump(manifest.as_dict(), sort_keys=False, allow_unicode=True)
            _add(tar, MANIFEST, io.BytesIO(text.encode()), len(text.encode()))
            for artifact in manifest.artifacts:
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
    """Hash, and with a key seal, every source; return the manifest and the files to store."""
    encryption = Encryption(base64.b64encode(secrets.token_bytes(16)).decode()) if key else None
    keys = _Keys.derive(key, encryption) if key and encryption else None
    artifacts, stored = [], {}
    for index, (name, source) in enumerate(sources.items()):
        if not _ARTIFACT_NAME.fullmatch(name):
            raise UsageError(f"an artefact cannot be named {name!r}")
        nonce = None
        stored[name] = source
        if keys:
            stored[name] = folder / f"sealed-{index}"
            nonce = _seal(source, stored[name], keys, f"{kind}/{name}")
        artifacts.append(
            Artifact(name, stored[name].stat().st_size, sha256_of(stored[name]), nonce)
        )
    manifest = Manifest(kind, metadata, tuple(artifacts), encryption)
    return (_sign(manifest, keys) if keys else manifest), stored


def _sign(manifest: Manifest, keys: _Keys) -> Manifest:
    assert manifest.encryption is not None
    checked = Encryption(**{**asdict(manifest.encryption), "key_check": keys.check})
    unsigned = Manifest(manifest.kind, manifest.metadata, manifest.artifacts, checked)
    signed = Encryption(**{**asdict(checked), "manifest_mac": keys.mac(_canonical(unsigned))})
    return Manifest(manifest.kind, manifest.metadata, manifest.artifacts, signed)


def _canonical(manifest: Manifest) -> bytes:
    """Return the bytes that the manifest's MAC covers: all of it but the MAC."""
    plain = manifest.as_dict()
    plain["encryption"]["manifest_mac"] = ""
    return json.dumps(plain, sort_keys=True, ensure_ascii=False).encode()


def _seal(source: Path, target: Path, keys: _Keys, bound_to: str) -> str:
    from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes  # noqa: PLC0415

    nonce = secrets.token_bytes(12)
    encryptor = Cipher(algorithms.AES(keys.seal), modes.GCM(nonce)).encryptor()
    encryptor.authenticate_additional_data(bound_to.encode())
    with source.open("rb") as reader, target.open("wb") as writer:
        while block := reader.read(_BLOCK):
            writer.write(encryptor.update(block))
        writer.write(encryptor.finalize() + encryptor.tag)
    return base64.b64encode(nonce).decode()


def _add(tar: tarfile.TarFile, name: str, source: IO[bytes], size: int) -> None:
    """Add one member; times and owners are left out, so equal content makes equal archives."""
    info = tarfile.TarInfo(name)
    info.size = size
    info.mode = 0o644
    tar.addfile(info, source)


def sha256_of(path: Path) -> str:
    """Return the hex SHA-256 of a file."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


class ArchiveReader:
    """An open archive. Use ``open_archive`` to get one."""

    def __init__(
        self, path: Path, manifest: Manifest, offsets: dict[str, int], keys: _Keys | None
    ) -> None:
        self.path = path
        self.manifest = manifest
        self._offsets = offsets
        self._keys = keys
        self._artifacts = {artifact.name: artifact for artifact in manifest.artifacts}

    @property
    def metadata(self) -> dict[str, Any]:
        """What the archive's writer said about it."""
        return self.manifest.metadata

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
        partial = target.with_name(f".{target.name}.partial")
        try:
            with partial.open("wb") as writer:
                for block in self._plain_blocks(name):
                    writer.write(block)
            partial.replace(target)
        finally:
            partial.unlink(missing_ok=True)

    def read_text(self, name: str, *, limit: int = _MAX_MANIFEST_BYTES) -> str:
        """Return a small UTF-8 artefact; the errors are those of ``extract``."""
        if self._artifact(name).size > limit:
            raise self._damaged(f"artefact {name} is larger than {limit} bytes")
        try:
            return b"".join(self._plain_blocks(name)).decode()
        except UnicodeDecodeError:
            raise self._damaged(f"artefact {name} is not UTF-8 text") from None

    def _artifact(self, name: str) -> Artifact:
        if name not in self._artifacts:
            raise ArtifactMissingError(f"{self.path} holds no artefact named {name}")
        return self._artifacts[name]

    def _damaged(self, why: str) -> DamagedArchiveError:
        return DamagedArchiveError(
            f"{self.path} is damaged: {why}", hint="fetch or build the file again"
        )

    def _plain_blocks(self, name: str) -> Iterator[bytes]:
        artifact = self._artifact(name)
        blocks = self._stored_blocks(artifact)
        return self._unseal(artifact, blocks) if self._keys else blocks

    def _stored_blocks(self, artifact: Artifact) -> Iterator[bytes]:
        digest, left = hashlib.sha256(), artifact.size
        with self.path.open("rb") as file:
            file.seek(self._offsets[artifact.name])
            while left and (block := file.read(min(_BLOCK, left))):
                digest.update(block)
                left -= len(block)
                yield block
        if left or not hmac.compare_digest(digest.hexdigest(), artifact.sha256):
            raise self._damaged(f"artefact {artifact.name} does not match its SHA-256")

    def _unseal(self, artifact: Artifact, blocks: Iterator[bytes]) -> Iterator[bytes]:
        from cryptography.exceptions import InvalidTag  # noqa: PLC0415 - keyed archives only
        from cryptography.hazmat.primitives.ciphers import (  # noqa: PLC0415
            Cipher,
            algorithms,
            modes,
        )

        assert self._keys is not None
        if not artifact.nonce:
            raise self._damaged(f"artefact {artifact.name} has no nonce")
        nonce = base64.b64decode(artifact.nonce)
        decryptor = Cipher(algorithms.AES(self._keys.seal), modes.GCM(nonce)).decryptor()
        decryptor.authenticate_additional_data(f"{self.manifest.kind}/{artifact.name}".encode())
        held = b""  # the last bytes are the tag, so some are always held back
        for block in blocks:
            held += block
            yield decryptor.update(held[:-_TAG_BYTES])
            held = held[-_TAG_BYTES:]
        try:
            yield decryptor.finalize_with_tag(held)
        except (InvalidTag, ValueError):
            raise self._damaged(f"artefact {artifact.name} fails its authentication") from None


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
    keys = _unlock(path, manifest, key) if manifest.encryption else None
    yield ArchiveReader(path, manifest, offsets, keys)


def _unlock(path: Path, manifest: Manifest, key: str | None) -> _Keys:
    assert manifest.encryption is not None
    if key is None:
        raise KeyRequiredError(
            f"{path} is encrypted, and no key was given",
            hint=f"name it as {path.name}:KEY, or set MODEL_DEPLOY_KEY",
        )
    keys = _Keys.derive(key, manifest.encryption)
    if not hmac.compare_digest(keys.check, manifest.encryption.key_check):
        raise WrongKeyError(
            f"{path} is encrypted with another key than the one given",
            hint="use the key that the file was made with",
        )
    if not hmac.compare_digest(keys.mac(_canonical(manifest)), manifest.encryption.manifest_mac):
        raise DamagedArchiveError(f"{path} is damaged: its manifest was altered")
    return keys


def _read_index(path: Path) -> tuple[Manifest, dict[str, int]]:
    """Read the manifest and where each artefact's bytes begin."""
    try:
        with tarfile.open(path, "r:") as tar:
            manifest = _read_manifest(path, tar)
            offsets = _locate(path, tar, manifest)
    except tarfile.ReadError:
        raise _foreign(path, "it is not a tar file") from None
    if path.stat().st_size < max(offsets[a.name] + a.size for a in manifest.artifacts):
        raise DamagedArchiveError(f"{path} is damaged: it is cut short")
    return manifest, offsets


def _read_manifest(path: Path, tar: tarfile.TarFile) -> Manifest:
    first = tar.next()
    file = tar.extractfile(first) if first is not None and first.isreg() else None
    if first is None or file is None or first.name.removeprefix("./") != MANIFEST:
        raise _foreign(path, f"it does not begin with {MANIFEST}")
    if first.size > _MAX_MANIFEST_BYTES:
        raise _foreign(path, "its manifest is too large")
    try:
        raw = safe_yaml.load_mapping(file.read().decode())
    except ValueError as error:
        raise _foreign(path, f"its manifest cannot be read: {error}") from None
    if raw.get("format") != FORMAT:
        raise _foreign(path, "its manifest is not of this project")
    return _parse_manifest(path, raw)


def _parse_manifest(path: Path, raw: Mapping[str, Any]) -> Manifest:
    if raw.get("format_version") != FORMAT_VERSION:
        raise ForeignArchiveError(
            f"{path} has format version {raw.get('format_version')}; this program reads "
            f"{FORMAT_VERSION}",
            hint="use the version of riva-qs that made it, or build it again",
        )
    try:
        artifacts = tuple(_parse_artifact(entry) for entry in raw["artifacts"])
        names = {artifact.name for artifact in artifacts}
        if not 0 < len(names) == len(artifacts) <= _MAX_ARTIFACTS:
            raise ValueError("artefacts are missing, repeated or too many")  # noqa: TRY301
        encryption = _parse_encryption(raw["encryption"]) if raw["encryption"] else None
        return Manifest(str(raw["kind"]), dict(raw["metadata"]), artifacts, encryption)
    except (KeyError, TypeError, ValueError) as error:
        raise DamagedArchiveError(f"{path} is damaged: its manifest is malformed") from error


def _parse_artifact(raw: Any) -> Artifact:  # noqa: ANN401 - from YAML
    """Read one entry, and refuse what no archive of ours has."""
    name, size, sha256, nonce = raw["name"], raw["size"], raw["sha256"], raw.get("nonce")
    if not _ARTIFACT_NAME.fullmatch(name):
        raise ValueError("an artefact has a name with a path in it")
    if not isinstance(size, int) or size < 0 or not _SHA256.fullmatch(sha256):
        raise ValueError("an artefact has no size or no SHA-256")
    if nonce is not None:
        base64.b64decode(nonce, validate=True)
    return Artifact(name, size, sha256, nonce)


def _parse_encryption(raw: Any) -> Encryption:  # noqa: ANN401 - from YAML
    base64.b64decode(raw["salt"], validate=True)
    if not _SHA256.fullmatch(raw["manifest_mac"]) or not _KEY_CHECK.fullmatch(raw["key_check"]):
        raise ValueError("its check values are not hex")
    n = int(raw["n"])
    power_of_two = n > 1 and n & (n - 1) == 0
    if (
        not power_of_two
        or n > _SCRYPT_MAX_N
        or (raw["r"], raw["p"]) != (_SCRYPT["r"], _SCRYPT["p"])
    ):
        raise ValueError("its key derivation asks for too much memory")
    return Encryption(**raw)


def _locate(path: Path, tar: tarfile.TarFile, manifest: Manifest) -> dict[str, int]:
    offsets: dict[str, int] = {}
    for artifact in manifest.artifacts:
        try:
            member = tar.next()
        except tarfile.ReadError:
            member = None
        if (
            member is None
            or not member.isreg()
            or (member.name, member.size) != (artifact.name, artifact.size)
        ):
            raise DamagedArchiveError(
                f"{path} is damaged: artefact {artifact.name} is missing or has another size",
                hint="fetch or build the file again",
            )
        offsets[artifact.name] = member.offset_data
    return offsets


def _foreign(path: Path, why: str) -> ForeignArchiveError:
    return ForeignArchiveError(
        f"{path} is not an archive that riva-qs made: {why}",
        hint="archives made by NVIDIA's tools are deployed by NVIDIA's image; "
        "a NeMo checkpoint is converted by nemo2riva",
    )


def key_from_environment() -> str | None:
    """Return the key that the suite hands over in ``MODEL_DEPLOY_KEY``, if any."""
    return os.environ.get("MODEL_DEPLOY_KEY") or None
