"""An archive's table of contents: written as YAML, and parsed without trust."""

from __future__ import annotations

import base64
import json
import re
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import yaml

from riva_speech.archive import packing

if TYPE_CHECKING:
    from collections.abc import Mapping

FORMAT = "riva-qs"
# Archives without deflated artefacts are of the first version, which older programs read too.
PLAIN_VERSION, FORMAT_VERSION = 1, 2
# The member that holds it, always the first.
MEMBER = "manifest.yaml"
MAX_BYTES = 4 << 20

_MAX_ARTIFACTS = 1024
_ARTIFACT_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,199}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_KEY_CHECK = re.compile(r"[0-9a-f]{32}")
# scrypt's parameters are read from the file, so a hostile one must not choose how much memory its
# opening takes: 2**15 with r = 8 is 32 MiB.
_SCRYPT_N, _SCRYPT_MAX_N, _SCRYPT_R, _SCRYPT_P = 1 << 15, 1 << 17, 8, 1


@dataclass(frozen=True)
class Artifact:
    """One file of an archive, as it is stored.

    ``size`` (bytes) and ``sha256`` (hex) are those of the stored bytes, so damage is found without
    a key. ``nonce`` (base64) is set when the artefact is sealed. ``compression`` and
    ``plain_size`` are set when it is deflated, which comes before sealing.
    """

    name: str
    size: int
    sha256: str
    nonce: str | None = None
    compression: str | None = None
    plain_size: int | None = None

    def __post_init__(self) -> None:
        """Refuse a name that could lead out of a folder."""
        if not _ARTIFACT_NAME.fullmatch(self.name):
            raise ValueError(f"an artefact cannot be named {self.name!r}")


@dataclass(frozen=True)
class Encryption:
    """How an archive is sealed: parameters and check values, nothing secret."""

    salt: str
    n: int = _SCRYPT_N
    r: int = _SCRYPT_R
    p: int = _SCRYPT_P
    key_check: str = ""
    manifest_mac: str = ""
    cipher: str = "AES-256-GCM"
    kdf: str = "scrypt"


@dataclass(frozen=True)
class Manifest:
    """What an archive says about itself.

    ``kind`` is ``riva`` or ``rmir``; ``metadata`` holds plain YAML values and belongs to whoever
    wrote the archive.
    """

    kind: str
    metadata: dict[str, Any]
    artifacts: tuple[Artifact, ...]
    encryption: Encryption | None = None

    @property
    def format_version(self) -> int:
        """The oldest version that can say what the manifest says."""
        packed = any(artifact.compression for artifact in self.artifacts)
        return FORMAT_VERSION if packed else PLAIN_VERSION

    def to_yaml(self) -> bytes:
        """Return the manifest as it is stored."""
        return yaml.safe_dump(self.as_dict(), sort_keys=False, allow_unicode=True).encode()

    def canonical(self) -> bytes:
        """Return what the manifest's MAC covers: all of it but the MAC, in one spelling."""
        assert self.encryption is not None
        unsigned = replace(self, encryption=replace(self.encryption, manifest_mac=""))
        return json.dumps(unsigned.as_dict(), sort_keys=True, ensure_ascii=False).encode()

    def as_dict(self) -> dict[str, Any]:
        """Return the manifest as plain values."""
        return {
            "format": FORMAT,
            "format_version": self.format_version,
            "kind": self.kind,
            "encryption": asdict(self.encryption) if self.encryption else None,
            "metadata": self.metadata,
            "artifacts": [
                {key: value for key, value in asdict(artifact).items() if value is not None}
                for artifact in self.artifacts
            ],
        }


def parse(raw: Mapping[str, Any]) -> Manifest:
    """Read a manifest of this format and version, and refuse what no archive of ours has.

    Raises:
        ValueError: It is malformed.
    """
    try:
        artifacts = tuple(_parse_artifact(entry) for entry in raw["artifacts"])
        encryption = _parse_encryption(raw["encryption"]) if raw["encryption"] else None
        manifest = Manifest(str(raw["kind"]), dict(raw["metadata"]), artifacts, encryption)
    except (KeyError, TypeError) as error:
        raise ValueError(f"a value is missing or of the wrong kind: {error}") from error
    names = {artifact.name for artifact in artifacts}
    if not 0 < len(names) == len(artifacts) <= _MAX_ARTIFACTS:
        raise ValueError("artefacts are missing, repeated or too many")
    return manifest


def _parse_artifact(raw: Any) -> Artifact:  # noqa: ANN401 - from YAML
    size, sha256, nonce = raw["size"], raw["sha256"], raw.get("nonce")
    if not isinstance(size, int) or size < 0 or not _SHA256.fullmatch(sha256):
        raise ValueError("an artefact has no size or no SHA-256")
    if nonce is not None:
        base64.b64decode(nonce, validate=True)
    compression, plain_size = raw.get("compression"), raw.get("plain_size")
    if compression not in (None, packing.DEFLATE):
        raise ValueError(f"an artefact is compressed by {compression!r}")
    if compression and not (
        isinstance(plain_size, int) and 0 <= plain_size <= packing.MAX_RATIO * size
    ):
        raise ValueError("a compressed artefact's size is missing or beyond reason")
    return Artifact(raw["name"], size, sha256, nonce, compression, plain_size)


def _parse_encryption(raw: Any) -> Encryption:  # noqa: ANN401 - from YAML
    base64.b64decode(raw["salt"], validate=True)
    if not _SHA256.fullmatch(raw["manifest_mac"]) or not _KEY_CHECK.fullmatch(raw["key_check"]):
        raise ValueError("its check values are not hex")
    n = int(raw["n"])
    affordable = 1 < n <= _SCRYPT_MAX_N and n & (n - 1) == 0
    if not affordable or (raw["r"], raw["p"]) != (_SCRYPT_R, _SCRYPT_P):
        raise ValueError("its key derivation asks for too much memory")
    return Encryption(**raw)
