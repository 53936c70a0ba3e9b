"""Where values come from: the first layer that knows a key wins.

Four layers: `--set` on the command line, the environment, the configuration file, the default.
The file is data: nothing in it is executed or expanded.
"""

from __future__ import annotations

import io
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from quickstart.config.keys import ENVIRONMENT_PREFIX, MASK
from quickstart.config.rules import contradictions
from quickstart.config.settings import SETTINGS, Settings
from quickstart.config.values import nearest, parse
from quickstart.errors import ConfigError, UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from quickstart.config.keys import Setting

DEFAULT_FILE = "config.env"


@dataclass(frozen=True)
class Loaded:
    """The settings that hold, where each came from, the file that was read, and the keys given."""

    settings: Settings
    origins: Mapping[str, str]
    file: Path | None = None
    given: tuple[str, ...] = ()

    def value(self, name: str) -> object:
        """Return the value of a key, by its name in the file."""
        value: object = getattr(self.settings, SETTINGS[name].field)
        return value

    def data(self, name: str) -> object:
        """Return the value of a key for programs, masked when it is secret."""
        value = self.value(name)
        return MASK if SETTINGS[name].key.secret and value else value

    def shown(self, name: str) -> str:
        """Return the value of a key for people, masked when it is secret."""
        return SETTINGS[name].shown(self.value(name))


@dataclass(frozen=True)
class _Entry:
    """One `key=value` that somebody wrote, and where."""

    name: str
    text: str
    origin: str
    base: Path


def load(
    file: Path | None = None,
    overrides: Sequence[str] = (),
    environ: Mapping[str, str] = os.environ,
) -> Loaded:
    """Read all layers and return the settings, or report every problem at once.

    Args:
        file: The configuration file; without one, `./config.env` where it exists.
        overrides: `key=value` texts of the command line.
        environ: The environment variables.

    Raises:
        ConfigError: A key is unknown, or a value is not what its key takes.
    """
    problems: list[str] = []
    path = file if file is not None else _default_file()
    entries = [] if path is None else _from_file(path, problems)
    entries += _from_environment(environ, problems)
    entries += _from_overrides(overrides, problems)
    given, origins = _evaluate(entries, problems)
    if not problems:
        settings = Settings(**given)
        problems = list(contradictions(settings))
    if problems:
        raise ConfigError(problems, "`riva-qs config example` prints every key with its meaning")
    defaults = {name: _default_origin(setting, settings) for name, setting in SETTINGS.items()}
    return Loaded(settings, {**defaults, **origins}, path, tuple(origins))


def _default_origin(setting: Setting, settings: Settings) -> str:
    """Return the origin of a key that nobody set: what its default depended on."""
    reason = setting.key.default.reason(settings)
    return f"default ({reason})" if reason else "default"


def _default_file() -> Path | None:
    """Return `./config.env`, where it exists."""
    path = Path(DEFAULT_FILE)
    return path if path.exists() else None


def _evaluate(
    entries: Sequence[_Entry], problems: list[str]
) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the value of each key's strongest entry, and where it came from."""
    given: dict[str, Any] = {}
    origins: dict[str, str] = {}
    for entry in entries:
        setting = SETTINGS.get(entry.name)
        if setting is None:
            near = nearest(entry.name, SETTINGS)
            problems.append(f'{entry.origin}: unknown key "{entry.name}"{near}')
            continue
        value, wrong = parse(setting, entry.text, entry.base)
        if wrong:
            problems.append(f"{entry.origin}: {entry.name}: {wrong}")
        given[setting.field], origins[entry.name] = value, entry.origin
    return given, origins


def _from_overrides(overrides: Sequence[str], problems: list[str]) -> list[_Entry]:
    """Return the entries of the command line."""
    entries = []
    for text in overrides:
        name, equals, value = text.partition("=")
        if not equals:
            problems.append(f'--set: "{text}" is not key=value')
            continue
        entries.append(_Entry(name.strip(), value.strip(), "--set", Path.cwd()))
    return entries


def _from_environment(environ: Mapping[str, str], problems: list[str]) -> list[_Entry]:
    """Return the entries of the environment; an empty variable counts as unset."""
    names = {variable: s.name for s in SETTINGS.values() for variable in s.variables}
    strays = (name for name in environ if name.startswith(ENVIRONMENT_PREFIX))
    problems += [
        f'environment: unknown variable "{stray}"{nearest(stray, names)}'
        for stray in sorted(set(strays) - set(names))
    ]
    return [
        _Entry(name, environ[variable], f"environment {variable}", Path.cwd())
        for variable, name in names.items()
        if environ.get(variable)
    ]


def _from_file(path: Path, problems: list[str]) -> list[_Entry]:
    """Return the entries of a configuration file."""
    from dotenv.parser import parse_stream

    text = _read(path)
    base = path.absolute().parent
    entries: dict[str, _Entry] = {}
    in_array = False
    for binding in parse_stream(io.StringIO(text)):
        raw = binding.original.string
        line = binding.original.line + len(raw) - len(raw.lstrip("\n"))
        origin = f"{path}:{line}"
        if binding.error or (binding.key and binding.value is None):
            if not in_array:
                problems.append(f'{origin}: not key=value: "{_without_value(raw)}"')
        elif binding.key in entries:
            first = entries[binding.key].origin
            problems.append(f"{origin}: {binding.key} is set a second time, after {first}")
        elif binding.key:
            entries[binding.key] = _Entry(binding.key, binding.value or "", origin, base)
        in_array = _in_array(raw, before=in_array)
    return list(entries.values())


def _in_array(raw: str, *, before: bool) -> bool:
    """Say whether a bash array that began is still open after this line."""
    return ")" not in raw and (before or "=(" in raw)


def _without_value(raw: str) -> str:
    """Return a line that could not be read without what may be a secret in it."""
    name, equals, _ = raw.strip().partition("=")
    return f"{name[:40]}{equals}{'...' if equals else ''}"


def _read(path: Path) -> str:
    """Return the text of a configuration file, whatever editor wrote it."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        message = f"{path} is not a text file: byte {error.start} is not UTF-8"
        raise UsageError(message, "save it as UTF-8") from error
    except OSError as error:
        message = f"cannot read the configuration file {path}: {error.strerror}"
        missing = isinstance(error, FileNotFoundError)
        hint = (
            f"`riva-qs config example > {path}` writes one" if missing else "check who may read it"
        )
        raise UsageError(message, hint) from error
    return text.replace("\r\n", "\n").replace("\r", "\n")
