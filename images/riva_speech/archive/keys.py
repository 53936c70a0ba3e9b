"""Where an archive's key comes from: ``file:key``, ``file:env:NAME`` or ``file:file:PATH``.

What stands on a command line can be read by every user of the machine. The two longer forms, those
of OpenSSL, name a variable of the environment or a file instead.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from riva_speech.errors import UsageError

# As the help of each program that takes keys explains them.
HELP = "a KEY of env:NAME or file:PATH is read from a variable or a file, where ps does not show it"

_NAMED = re.compile(r"(?P<archive>.+?):(?P<key>(?:env|file):.+)", re.DOTALL)
_MAX_BYTES = 4096


def split_key(spec: str) -> tuple[Path, str | None]:
    """Split ``file[:key]`` and return the key itself, wherever it is kept.

    The key is what follows the last colon, as in the official tools, or the variable or file that
    ``env:NAME`` or ``file:PATH`` names. A colon that belongs to an existing file's name is not a
    separator.

    Raises:
        UsageError: The variable is not set, or the file holds no key.
    """
    if ":" not in spec or _is_there(spec):
        return Path(spec), None
    if named := _NAMED.fullmatch(spec):
        return Path(named["archive"]), resolve(named["key"])
    path, key = spec.rsplit(":", 1)
    return Path(path), key or None


def _is_there(name: str) -> bool:
    """Whether there is a file; a name that no file can have is none, and may hold a key."""
    try:
        return Path(name).exists()
    except OSError:
        return False


def resolve(text: str) -> str:
    """Return the key that ``env:NAME`` or ``file:PATH`` names; any other text is the key itself.

    Raises:
        UsageError: The variable is not set, or the file holds no key.
    """
    kind, _, name = text.partition(":")
    if kind == "env" and name:
        return _from_variable(name)
    return from_file(Path(name)) if kind == "file" and name else text


def _from_variable(name: str) -> str:
    key = os.environ.get(name)
    if not key:
        raise UsageError(f"the key is to come from {name}, which is not set", hint="export it")
    return key


def given(text: str) -> str:
    """Return the key in the file of this name where there is one, or what ``resolve`` makes of it.

    Raises:
        UsageError: The variable is not set, or the file holds no key.
    """
    return from_file(Path(text)) if _is_there(text) and Path(text).is_file() else resolve(text)


def from_file(path: Path) -> str:
    """Return the key in a file; white space around it does not count.

    Raises:
        UsageError: The file cannot be read, or is no single line of at most 4 KiB.
    """
    try:
        with path.open("rb") as file:
            content = file.read(_MAX_BYTES + 1)
        key = content.decode().strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", "it is not text")
        raise UsageError(f"the key file {path} cannot be read: {reason}") from error
    if len(key.splitlines()) != 1 or len(content) > _MAX_BYTES:
        raise UsageError(
            f"the key file {path} does not hold a key", hint="put the key on one line, alone"
        )
    return key


def key_from_environment() -> str | None:
    """Return the key that the suite hands over in ``MODEL_DEPLOY_KEY``, if any."""
    return os.environ.get("MODEL_DEPLOY_KEY") or None
