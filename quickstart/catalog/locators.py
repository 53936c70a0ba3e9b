"""How a model is named: in NGC, by an address with its hash, or by a name of the catalogue."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import PurePosixPath
from urllib.parse import unquote, urlsplit

_NAME = r"[A-Za-z0-9][\w.-]*"
_NGC = re.compile(rf"(?P<path>{_NAME}(/{_NAME}){{1,2}}):(?P<version>{_NAME})", re.ASCII)
_SHA256 = re.compile(r"sha256=(?P<hex>[0-9a-fA-F]{64})")


@dataclass(frozen=True)
class Locator:
    """Where a model is.

    Attributes:
        source: "ngc", "http", "file", or "embedded" for a name of the catalogue.
        reference: The NGC target, the address without its hash, or the name.
        name: What the model is called there.
        version: Its version; for an address the first digits of the hash.
        file: The archive's file name, where it is known.
        sha256: The archive's hash, where it is known.
    """

    source: str
    reference: str
    name: str
    version: str = ""
    file: str = ""
    sha256: str = ""


def wrong_reference(text: str) -> str:
    """Say what is wrong with the reference of a model, or nothing."""
    try:
        parse(text)
    except ValueError as error:
        return str(error)
    return ""


def parse(text: str) -> Locator:
    """Return where a model is.

    Args:
        text: `org[/team]/name:version`, `https://host/file.rmir#sha256=HEX`,
            `file:///folder/file.rmir#sha256=HEX`, or a name of the embedded catalogue.

    Raises:
        ValueError: It is none of these; the message says why.
    """
    if "://" in text:
        return _address(text)
    match = _NGC.fullmatch(text)
    if match:
        return Locator("ngc", text, match["path"].rpartition("/")[2], match["version"])
    if re.fullmatch(_NAME, text, re.ASCII):
        return Locator("embedded", text, text)
    raise ValueError(
        f'"{text}" is not a model: org/team/name:version, https://host/file.rmir#sha256=HEX,'
        " file:///folder/file.rmir#sha256=HEX, or a name of the embedded catalogue"
    )


def _address(text: str) -> Locator:
    """Return the model at an address."""
    try:
        parts = urlsplit(text)
    except ValueError as error:
        raise ValueError(f'"{text}" is no address: {error}') from error
    wrong = _wrong_address(text, parts.scheme, parts.netloc)
    digest = _SHA256.fullmatch(parts.fragment)
    file = PurePosixPath(unquote(parts.path)).name
    if not wrong and digest is None:
        wrong = f'"{text}" lacks its hash: append #sha256= and what sha256sum prints'
    if not wrong and not re.fullmatch(rf"{_NAME}\.(rmir|tar\.gz)", file, re.ASCII):
        wrong = f'"{text}" names no archive: a *.rmir, or a prebuilt *.tar.gz'
    if wrong or digest is None:
        raise ValueError(wrong)
    sha256 = digest["hex"].lower()
    source = "file" if parts.scheme == "file" else "http"
    name = file.removesuffix(".rmir").removesuffix(".tar.gz")
    return Locator(source, text.partition("#")[0], name, sha256[:12], file, sha256)


def _wrong_address(text: str, scheme: str, host: str) -> str:
    """Say what is wrong with the parts of an address."""
    if "@" in host:
        return f"an address with a password in it ({scheme}://...) would show in logs"
    if scheme == "file":
        return f'"{text}" is no local file: write file:///folder/file' if host else ""
    if scheme != "https":
        return f'"{text}": {scheme}:// is not https:// or file://'
    return "" if host else f'"{text}" names no host'
