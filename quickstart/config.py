"""Settings: what can be configured, and where each value came from.

Four layers, the first that knows a key wins: `--set` on the command line, the environment, the
configuration file, the default. The file is data: nothing in it is executed or expanded.
"""

from __future__ import annotations

import difflib
import io
import os
import re
import shlex
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from quickstart.errors import ConfigError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

T = TypeVar("T")

DEFAULT_FILE = "config.env"
ENVIRONMENT_PREFIX = "RIVA_QS_"
MASK = "********"


@dataclass(frozen=True)
class Key:
    """What is known of one key besides its type and its default."""

    doc: str
    name: str = ""
    choices: tuple[str, ...] = ()
    check: Callable[[Any], str] | None = None
    resolve: Callable[[str, Path], str] | None = None
    variable: str = ""
    secret: bool = False


def _key(default: T, doc: str, **details: Any) -> T:  # noqa: ANN401 - the fields of Key, checked there
    """Declare a setting: its default, its documentation, and what else Key can say of it."""
    declared: T = field(default=default, metadata={"key": Key(doc, **details)})
    return declared


def is_path(location: str) -> bool:
    """Say whether a model location is a path; else it is a plain name."""
    return "/" in location or location.startswith("~") or location in {".", ".."}


def _absolute(text: str, base: Path) -> str:
    """Return the path that `text` means when it was written in `base`."""
    return os.path.normpath(base / Path(text).expanduser()) if text else ""


def _location(text: str, base: Path) -> str:
    """Return a model location with its path made absolute; a plain name stays one."""
    return _absolute(text, base) if is_path(text) else text


def _wrong_path(value: str) -> str:
    """Say what is wrong with a path."""
    unknown = value.startswith("~") and os.path.expanduser(value) == value  # noqa: PTH111 - no error
    return f'"{value}" names a home folder that does not exist' if unknown else ""


def _wrong_location(value: str) -> str:
    """Say what is wrong with a model location."""
    if is_path(value):
        return _wrong_path(value)
    if re.fullmatch(r"[A-Za-z0-9][\w.-]*", value):
        return ""
    return f'"{value}" is neither a path (it has no /) nor a plain name'


def _wrong_port(value: int) -> str:
    """Say what is wrong with a TCP port."""
    return "" if 1 <= value <= 65535 else f"{value} is not a port: 1 to 65535"  # noqa: PLR2004


def _wrong_seconds(value: int) -> str:
    """Say what is wrong with a time limit."""
    return "" if value > 0 else f"{value} is no time to wait: at least 1"


def _wrong_language(value: str) -> str:
    """Say what is wrong with a language code."""
    if re.fullmatch(r"[A-Za-z]{2,3}(-[A-Za-z0-9]{2,8})*|multi", value):
        return ""
    return f'"{value}" is not a language code such as en-US'


def _wrong_word(value: str) -> str:
    """Say what is wrong with a value that must be one word."""
    return "" if re.fullmatch(r"\S+", value) else f'"{value}" is not one word'


@dataclass(frozen=True)
class Settings:
    """Everything that can be configured, with the names of the official `config.sh`."""

    backend: str = _key(
        "auto",
        "What runs the service: embedded (processes on this machine, no Docker and no account),\n"
        "docker (containers), or auto, which chooses and says why.",
        choices=("auto", "embedded", "docker"),
    )
    service_enabled_asr: bool = _key(
        default=True,
        doc="Serve speech recognition.",
    )
    service_enabled_nlp: bool = _key(
        default=False,
        doc="Serve language processing. The embedded backend has no such model yet.",
    )
    service_enabled_tts: bool = _key(
        default=False,
        doc="Serve speech synthesis. The embedded backend has no such model yet.",
    )
    service_enabled_nmt: bool = _key(
        default=False,
        doc="Serve translation. The embedded backend has no such model yet.",
    )
    asr_acoustic_model: str = _key(
        "digits",
        "The speech recognition model, by its name in the catalogue.",
        check=_wrong_word,
    )
    asr_language_code: str = _key(
        "en-US",
        "The language of speech recognition, one code such as en-US.",
        check=_wrong_language,
    )
    riva_model_loc: str = _key(
        "riva-model-repo",
        "Where models live (rmir/ and models/ below it). A plain name is, for the embedded\n"
        "backend, a folder of that name in ~/.local/share/riva-qs ($XDG_DATA_HOME/riva-qs), and\n"
        "for docker a volume. What has a slash is a path; a relative one starts at the folder of\n"
        "this file.",
        check=_wrong_location,
        resolve=_location,
    )
    use_existing_rmirs: bool = _key(
        default=False,
        doc="true: init fetches nothing and deploys the archives that you put into rmir/.",
    )
    model_deploy_key: str = _key(
        "tlt_encode",
        "The key of encrypted archives. Better given in the environment than in this file.",
        name="MODEL_DEPLOY_KEY",
        variable="MODEL_DEPLOY_KEY",
        secret=True,
    )
    riva_speech_api_host: str = _key(
        "127.0.0.1",
        "The address that the gRPC service listens on. 0.0.0.0 lets other machines in.",
        check=_wrong_word,
    )
    riva_speech_api_port: int = _key(
        50051,
        "The port of the gRPC service.",
        check=_wrong_port,
    )
    riva_timeout_sec: int = _key(
        300,
        "How many seconds `start` waits for the service to answer.",
        check=_wrong_seconds,
        variable="RIVA_TIMEOUT_SEC",
    )
    readiness_audio: str = _key(
        "",
        "The recording that `start` and `status` send to see whether the service answers. Empty:\n"
        "the packaged sample. Set it to one in your model's language and vocabulary.",
        check=_wrong_path,
        resolve=_absolute,
    )


@dataclass(frozen=True)
class Setting:
    """One key as the file, the environment, documentation and error messages know it."""

    field: str
    name: str
    kind: str
    default: Any
    key: Key

    @property
    def variables(self) -> tuple[str, ...]:
        """The environment variables that set it, the weaker first."""
        own = f"{ENVIRONMENT_PREFIX}{self.name.upper()}"
        return (self.key.variable, own) if self.key.variable else (own,)

    def shown(self, value: object) -> str:
        """Return a value as a configuration file spells it, masked when it is secret."""
        if self.key.secret:
            return MASK
        return str(value).lower() if isinstance(value, bool) else str(value)


def _declared() -> Iterator[Setting]:
    """Yield every setting in the order of its declaration."""
    for each in fields(Settings):
        key: Key = each.metadata["key"]
        yield Setting(each.name, key.name or each.name, str(each.type), each.default, key)


SETTINGS: dict[str, Setting] = {setting.name: setting for setting in _declared()}


@dataclass(frozen=True)
class Loaded:
    """The settings that hold, where each came from, and the file that was read."""

    settings: Settings
    origins: Mapping[str, str]
    file: Path | None = None

    def value(self, name: str) -> object:
        """Return the value of a key, by its name in the file."""
        value: object = getattr(self.settings, SETTINGS[name].field)
        return value

    def data(self, name: str) -> object:
        """Return the value of a key for programs, masked when it is secret."""
        return MASK if SETTINGS[name].key.secret else self.value(name)

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
    values, origins = _evaluate(entries, problems)
    if problems:
        raise ConfigError(problems, "`riva-qs config example` prints every key with its meaning")
    return Loaded(replace(Settings(), **values), origins, path)


def _default_file() -> Path | None:
    """Return `./config.env`, where it exists."""
    path = Path(DEFAULT_FILE)
    return path if path.exists() else None


def _evaluate(
    entries: Sequence[_Entry], problems: list[str]
) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the value of each key's strongest entry, and where it came from."""
    values: dict[str, Any] = {}
    origins = dict.fromkeys(SETTINGS, "default")
    for entry in entries:
        setting = SETTINGS.get(entry.name)
        if setting is None:
            problems.append(f"{entry.origin}: {_unknown(entry.name)}")
            continue
        value, wrong = _parse(setting, entry)
        if wrong:
            problems.append(f"{entry.origin}: {entry.name}: {wrong}")
        values[setting.field], origins[entry.name] = value, entry.origin
    return values, origins


def _unknown(name: str) -> str:
    """Return the sentence about a key that nobody knows."""
    known = {each.lower(): each for each in SETTINGS}
    near = difflib.get_close_matches(name.lower(), known, n=1, cutoff=0.6)
    suggestion = f"; did you mean {known[near[0]]}?" if near else ""
    return f'unknown key "{name}"{suggestion}'


def _parse(setting: Setting, entry: _Entry) -> tuple[Any, str]:
    """Return the typed value of an entry, and what is wrong with it."""
    key, text = setting.key, entry.text
    wrong = "" if key.secret else _shell_syntax(setting.name, text)
    if not wrong and not text.isprintable():
        wrong = "it holds a control character"
    if wrong:
        return None, wrong
    value, wrong = _typed(setting.kind, text)
    if not wrong and key.choices and value not in key.choices:
        wrong = f'"{text}" is not one of {", ".join(key.choices)}'
    if not wrong and key.check is not None:
        wrong = key.check(value)
    if key.resolve is not None and not wrong:
        value = key.resolve(text, entry.base)
    return value, wrong


def _typed(kind: str, text: str) -> tuple[Any, str]:
    """Return `text` as a value of the kind that a setting has, and what is wrong with it."""
    if kind == "bool":
        value = {"true": True, "false": False}.get(text.lower())
        return value, "" if value is not None else f'"{text}" is neither true nor false'
    if kind == "int":
        number = re.fullmatch(r"[+-]?[0-9]{1,9}", text)
        return int(text) if number else 0, "" if number else f'"{text}" is not a whole number'
    return text, ""


def _shell_syntax(name: str, text: str) -> str:
    """Explain what a shell would have evaluated in a value, since nothing here does."""
    if text.startswith("("):
        first, *more = shlex.split(text.strip("()"), posix=True) or [""]
        others = f" (one value; there were {1 + len(more)})" if more else ""
        return f"{text} is a bash array; write {name}={first}{others}"
    if re.search(r"\$[({\w]|`", text):
        return f"{text} is shell syntax, and this file is not executed; write the value itself"
    return ""


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
    for stray in sorted(set(strays) - set(names)):
        near = difflib.get_close_matches(stray, names, n=1)
        suggestion = f"; did you mean {near[0]}?" if near else ""
        problems.append(f'environment: unknown variable "{stray}"{suggestion}')
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
