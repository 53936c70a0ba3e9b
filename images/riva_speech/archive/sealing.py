"""Encryption of artefacts, and telling a wrong key from a damaged file.

scrypt turns the passphrase into one key for AES-256-GCM, which seals each artefact under its own
nonce, and one for HMAC-SHA-256, which covers the manifest.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from riva_speech.archive.manifest import Encryption

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from riva_speech.archive.manifest import Manifest

_BLOCK = 1 << 20
_TAG_BYTES = 16


@dataclass(frozen=True)
class Keys:
    """What scrypt makes of a passphrase: a sealing key and an authentication key."""

    seal: bytes = field(repr=False)
    authenticate: bytes = field(repr=False)

    @classmethod
    def derive(cls, passphrase: str, encryption: Encryption) -> Keys:
        """Derive the keys with an archive's own salt and costs."""
        salt = base64.b64decode(encryption.salt)
        kdf = Scrypt(salt=salt, length=64, n=encryption.n, r=encryption.r, p=encryption.p)
        raw = kdf.derive(passphrase.encode())
        return cls(seal=raw[:32], authenticate=raw[32:])

    def opens(self, encryption: Encryption) -> bool:
        """Whether these are the keys that an archive was sealed with."""
        return hmac.compare_digest(self._check(), encryption.key_check)

    def vouch_for(self, manifest: Manifest) -> bool:
        """Whether a manifest is as it was when it was signed."""
        assert manifest.encryption is not None
        mac = self._mac(manifest.canonical())
        return hmac.compare_digest(mac, manifest.encryption.manifest_mac)

    def sign(self, manifest: Manifest) -> Manifest:
        """Return a manifest with its check values."""
        assert manifest.encryption is not None
        checked = replace(manifest.encryption, key_check=self._check())
        unsigned = replace(manifest, encryption=checked)
        mac = self._mac(unsigned.canonical())
        return replace(manifest, encryption=replace(checked, manifest_mac=mac))

    def _check(self) -> str:
        return self._mac(b"riva-qs key check")[:32]

    def _mac(self, data: bytes) -> str:
        return hmac.new(self.authenticate, data, hashlib.sha256).hexdigest()


def new_encryption() -> Encryption:
    """Return parameters with a fresh salt."""
    return Encryption(base64.b64encode(secrets.token_bytes(16)).decode())


def seal(source: Path, target: Path, keys: Keys, bound_to: str) -> str:
    """Seal a file, bound to a name that it cannot be moved from; return the nonce in base64."""
    nonce = secrets.token_bytes(12)
    encryptor = Cipher(algorithms.AES(keys.seal), modes.GCM(nonce)).encryptor()
    encryptor.authenticate_additional_data(bound_to.encode())
    with source.open("rb") as reader, target.open("wb") as writer:
        while block := reader.read(_BLOCK):
            writer.write(encryptor.update(block))
        writer.write(encryptor.finalize() + encryptor.tag)
    return base64.b64encode(nonce).decode()


def unseal(blocks: Iterable[bytes], keys: Keys, nonce: str, bound_to: str) -> Iterator[bytes]:
    """Open what ``seal`` made, block by block.

    Raises:
        ValueError: The bytes are not those that were sealed. Blocks given before are void.
    """
    decryptor = Cipher(algorithms.AES(keys.seal), modes.GCM(base64.b64decode(nonce))).decryptor()
    decryptor.authenticate_additional_data(bound_to.encode())
    held = b""  # the last bytes are the tag, so some are always held back
    for block in blocks:
        held += block
        yield decryptor.update(held[:-_TAG_BYTES])
        held = held[-_TAG_BYTES:]
    try:
        yield decryptor.finalize_with_tag(held)
    except InvalidTag:
        raise ValueError("it fails its authentication") from None
