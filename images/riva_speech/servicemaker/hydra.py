"""The newer grammar of riva-build, translated into the older one.

riva-build --config-path=pkg://servicemaker.configs.asr --config-name=offline
    output_path=out.rmir:key 'source_path=[in.riva:key]' name=my-asr decoder=greedy key=value
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from riva_speech import safe_yaml
from riva_speech.errors import UsageError
from riva_speech.servicemaker.families.context import UNLIMITED
from riva_speech.servicemaker.pipelines import missing

if TYPE_CHECKING:
    from collections.abc import Sequence

_PACKAGE = "pkg://servicemaker.configs."
_PIPELINES = {"asr": "speech_recognition", "tts": "speech_synthesis"}
# Configurations that other builds are named after.
_OPTIONS = {"streaming": [], "offline": ["--offline"]}
_RENAMED = {"decoder": "decoder_type"}
# What a checkpoint's conversion may be told; one of them takes two numbers, as nemo2riva's option.
_PAIR = "offline_context"
_CONVERSION = ("format", "onnx_opset", "max_dim", "decoder", _PAIR)


@dataclass(frozen=True)
class Command:
    """A command in the older grammar, and how each ``.nemo`` among its sources is converted.

    ``conversions`` holds nemo2riva's options by the source that they are for: one value each, or a
    list of two numbers of steps for ``offline_context``.
    """

    argv: list[str]
    conversions: dict[str, dict[str, Any]] = field(default_factory=dict)


def is_hydra(argv: Sequence[str]) -> bool:
    """Whether a command line is written in the newer grammar."""
    return any(word.startswith(("--config-path", "--config-name")) for word in argv)


def translate(argv: Sequence[str]) -> Command:
    """Return the same command in the older grammar.

    Raises:
        UsageError: A part is missing, or is written in the older grammar.
        UnsupportedError: The configuration is of a pipeline that is not in this version.
    """
    flags, settings, rest = _split(argv)
    pipeline = _pipeline(flags.get("--config-path", ""))
    name = flags.get("--config-name", "")
    if name not in _OPTIONS:
        raise UsageError(
            f"--config-name={name} is not known", hint="it is one of " + ", ".join(_OPTIONS)
        )
    if rest:  # -h or -v
        return Command([pipeline, *rest, *_OPTIONS[name]])
    sources, conversions = _sources(settings.pop("source_path", ""))
    if not (output := settings.pop("output_path", "")):
        raise UsageError("output_path=FILE.rmir is missing")
    force = ["--force"] if settings.pop("force", "false").lower() == "true" else []
    options = [f"--{_RENAMED.get(key, key)}={value}" for key, value in settings.items()]
    return Command([pipeline, *force, *_OPTIONS[name], *options, output, *sources], conversions)


def options_of_nemo2riva(conversion: dict[str, Any]) -> list[str]:
    """Return how a checkpoint is to be converted as words of nemo2riva's command line."""
    words: list[str] = []
    for name, value in conversion.items():
        values = value if isinstance(value, list) else [value]
        words += [f"--{name.replace('_', '-')}", *map(str, values)]
    return words


def _split(argv: Sequence[str]) -> tuple[dict[str, str], dict[str, str], list[str]]:
    """Sort words into flags of the grammar, settings, and calls for help."""
    flags: dict[str, str] = {}
    settings: dict[str, str] = {}
    rest: list[str] = []
    words = iter(argv)
    for word in words:
        key, given, value = word.partition("=")
        if key in ("--config-path", "--config-name"):
            flags[key] = value if given else next(words, "")
        elif word in ("-h", "--help", "-v", "--verbose"):
            rest.append(word)
        elif word.startswith("-"):
            hint = "use force=true" if word in ("-f", "--force") else f"use {word.lstrip('-')}"
            raise UsageError(f"{word} is of the other grammar, without --config-path", hint=hint)
        elif not given:
            raise UsageError(f"{word!r} is not key=value")
        else:
            settings[key.lstrip("+")] = value
    return flags, settings, rest


def _pipeline(path: str) -> str:
    known = {f"{_PACKAGE}{kind}": name for kind, name in _PIPELINES.items()}
    if path not in known:
        raise UsageError(
            f"--config-path={path} is not known", hint="it is one of " + ", ".join(known)
        )
    missing.refuse(known[path])
    return known[path]


def _sources(text: str) -> tuple[list[str], dict[str, dict[str, Any]]]:
    try:
        listed = safe_yaml.load_mapping(f"source_path: {text}")["source_path"]
    except ValueError as error:
        raise UsageError(f"source_path={text} cannot be read: {error}") from error
    entries = listed if isinstance(listed, list) else [listed]
    sources, conversions = [], {}
    for entry in entries:
        if isinstance(entry, dict):
            path, conversions_of = _inline(entry)
            conversions[path] = conversions_of
            sources.append(path)
        elif isinstance(entry, str):
            sources.append(entry)
        else:
            raise UsageError(f"source_path={text} names no file", hint="source_path=[in.riva]")
    return sources, conversions


def _inline(entry: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """Read ``{path: m.nemo, nemo2riva: {onnx_opset: 19, offline_context: [280, 139]}}``.

    Raises:
        UsageError: A part is missing or not known, or its value is of another form.
    """
    conversion = entry.get("nemo2riva") or {}
    unknown = set(entry) - {"path", "nemo2riva"}
    if isinstance(conversion, dict):
        unknown |= set(conversion) - set(_CONVERSION)
    if unknown or not isinstance(conversion, dict) or not isinstance(entry.get("path"), str):
        raise UsageError(
            f"source_path: {entry} cannot be used",
            hint="write {path: FILE.nemo, nemo2riva: {" + ", ".join(_CONVERSION) + "}}",
        )
    for name, value in conversion.items():
        _refuse_form(name, value)
    return entry["path"], conversion


def _refuse_form(name: str, value: object) -> None:
    """Refuse lists where one value belongs, and anything but two numbers of steps where those do.

    Raises:
        UsageError: The value is of the wrong form.
    """
    if name != _PAIR:
        if isinstance(value, list | dict):
            raise UsageError(f"source_path: {name}: {value} is no single value")
        return
    # By the class itself, for true and false are integers too.
    pair = isinstance(value, list) and [type(one) for one in value] == [int, int] and value
    if not pair or min(pair) < UNLIMITED:
        raise UsageError(
            f"source_path: {name}: {value} is no pair of encoder steps",
            hint=f"write {name}: [LEFT, RIGHT], with {UNLIMITED} for all that there is",
        )
