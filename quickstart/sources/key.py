"""Which NGC key is used: where it was found, of what kind it is, and never the key itself.

The first place that has one wins: NGC_API_KEY (command line, environment, configuration file),
NGC_CLI_API_KEY, the file that NGC_API_KEY_FILE or NGC_CLI_API_KEY_FILE names, and the section
[CURRENT] of ~/.ngc/config, where the official tools keep it.
"""

from __future__ import annotations

import configparser
import os
import re
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from quickstart.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from quickstart.config import Settings

_OWN = "NGC_API_KEY"
_VARIABLES = ("NGC_CLI_API_KEY",)
_FILES = ("NGC_API_KEY_FILE", "NGC_CLI_API_KEY_FILE")
_ALL = (_OWN, *_VARIABLES, *_FILES)
_JWT = re.compile(r"[\w-]{8,}\.[\w-]{8,}\.[\w-]+")


@dataclass(frozen=True)
class Key:
    """A key, or none.

    Attributes:
        origin: Where it was found; without a key, where it was looked for.
        ignored: Where other keys were found, which lose.
    """

    secret: str = field(repr=False)
    origin: str
    ignored: tuple[str, ...] = ()

    @property
    def kind(self) -> str:
        """What sort of key it is, as NVIDIA's pages call it; without one "guest"."""
        if not self.secret:
            return "guest"
        if self.secret.startswith("nvapi-"):
            return "personal or service"
        return "token" if _JWT.fullmatch(self.secret) else "legacy"

    @property
    def note(self) -> str:
        """The sentence that says which key is used."""
        if not self.secret:
            return f"NGC: as a guest, since there is no key ({self.origin})"
        losers = f"; not used: {', '.join(self.ignored)}" if self.ignored else ""
        return f"NGC: {self.kind} key from {self.origin}{losers}"


def find(settings: Settings, environ: Mapping[str, str] = os.environ) -> Key:
    """Return the key that wins.

    Raises:
        UsageError: It cannot be read, or cannot be a key.
    """
    found: list[tuple[str, str]] = []
    for origin, read in _places(settings, environ):
        # Only the winner has to be sound.
        secret = _checked(read(), origin) if not found else _quietly(read)
        if secret:
            found.append((origin, secret))
    if not found:
        return Key("", _missing(environ))
    (origin, secret), *others = found
    return Key(secret, origin, tuple(where for where, other in others if other != secret))


def _places(
    settings: Settings, environ: Mapping[str, str]
) -> Iterator[tuple[str, Callable[[], str]]]:
    """Yield where a key may be, the strongest first, and what reads it there."""
    yield _own_origin(settings, environ), lambda: settings.ngc_api_key
    for name in _VARIABLES:
        yield name, partial(_variable, environ, name)
    for name in _FILES:
        path = environ.get(name, "")
        if path:
            yield f"{name} ({path})", partial(_read, Path(path))
    home = environ.get("NGC_CLI_HOME") or environ.get("HOME") or "~"
    config = Path(home).expanduser() / ".ngc" / "config"
    yield f"{config} [CURRENT]", partial(_from_config, config)


def _own_origin(settings: Settings, environ: Mapping[str, str]) -> str:
    """Return who gave the setting NGC_API_KEY."""
    for name in (f"RIVA_QS_{_OWN}", _OWN):
        if environ.get(name) and environ[name] == settings.ngc_api_key:
            return name
    return f"{_OWN} of the configuration"


def _variable(environ: Mapping[str, str], name: str) -> str:
    """Return the key in a variable."""
    return environ.get(name, "")


def _quietly(read: Callable[[], str]) -> str:
    """Return a key that does not matter, and none where it cannot be read."""
    try:
        return read().strip()
    except UsageError:
        return ""


def _read(path: Path) -> str:
    """Return the key in a file."""
    try:
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not text"
        message = f"cannot read the NGC key in {path}: {why}"
        raise UsageError(message, "check NGC_API_KEY_FILE and who may read the file") from error


def _from_config(path: Path) -> str:
    """Return the key in the section [CURRENT] of the official tools' file."""
    if not path.is_file():
        return ""
    parser = configparser.ConfigParser(interpolation=None)
    try:
        parser.read_string(_read(path))
    except configparser.Error as error:
        hint = "mend it or move it away, or set NGC_API_KEY"
        raise UsageError(f"{path} is not a configuration of the ngc tool", hint) from error
    key = parser.get("CURRENT", "apikey", fallback="")
    return "" if key == "no-apikey" else key


def _checked(text: str, origin: str) -> str:
    """Return a key without the quotes and line ends that copying adds."""
    secret = text.strip().strip("\"'").strip()
    if re.search(r"\s|[^\x21-\x7e]", secret):
        message = f"what {origin} holds is no NGC key: it has a space or a letter that none has"
        raise UsageError(message, "copy the key again, on one line")
    return secret


def _missing(environ: Mapping[str, str]) -> str:
    """Say where no key was found."""
    empty = [name for name in _ALL if name in environ]
    text = f"looked at {', '.join(_ALL)} and ~/.ngc/config"
    if empty:
        text += f"; {', '.join(empty)} is set but empty, as sudo leaves it"
    return text
