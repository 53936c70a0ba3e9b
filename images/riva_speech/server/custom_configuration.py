"""The keys of ``RecognitionConfig.custom_configuration``: text on the wire, typed behind it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from riva_speech.asr.options import VadOptions

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_LONGEST_SECONDS = 60.0
_LONGEST_WINDOW_MS = 60_000
# How much of a wrong key or value goes back to the client.
_SHOWN = 60


class RequestError(ValueError):
    """A request that cannot be right; the message is what the client is told."""


@dataclass(frozen=True)
class Custom:
    """What a request's custom configuration asks for; ``stop_history_eou`` in milliseconds."""

    vad: VadOptions = field(default_factory=VadOptions)
    vad_probabilities: bool = False
    partial_itn: bool = False
    stop_history_eou: int | None = None


def _boolean(text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise ValueError("true or false")
    return text.lower() == "true"


def _number(most: float) -> Callable[[str], float]:
    def parse(text: str) -> float:
        """Return the number, or raise ValueError with what is wanted."""
        try:
            value = float(text)
        except ValueError:
            value = -1.0
        # Written so that NaN, which compares as false, is refused too.
        if not 0 <= value <= most:
            raise ValueError(f"a number from 0 to {most:g}")
        return value

    return parse


def _milliseconds(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) < len("100000")):
        raise ValueError(f"milliseconds from 0 to {_LONGEST_WINDOW_MS}")
    return int(_number(_LONGEST_WINDOW_MS)(text))


def _no_detection(text: str) -> None:
    if _boolean(text):
        raise ValueError("false here: each model has one language")


def _transcribe(text: str) -> None:
    if text != "transcribe":
        raise ValueError("'transcribe' here: no model translates")


_PROBABILITY, _SECONDS = _number(1), _number(_LONGEST_SECONDS)
_VAD: dict[str, Callable[[str], float]] = {
    "onset": _PROBABILITY,
    "offset": _PROBABILITY,
    "min_duration_on": _SECONDS,
    "min_duration_off": _SECONDS,
    "pad_onset": _SECONDS,
    "pad_offset": _SECONDS,
}
_VAD_PREFIX = "neural_vad."
_VAD_ENDPOINTING = "enable_vad_endpointing"
_VAD_PROBABILITIES = "get_vad_probabilities"
_PARTIAL_ITN = "apply_partial_itn"
_FIRST_WINDOW = "stop_history_eou"
_LANGUAGES = ("source_language", "target_language")

_PARSERS: dict[str, Callable[[str], Any]] = {
    _VAD_ENDPOINTING: _boolean,
    **{f"{_VAD_PREFIX}{name}": parse for name, parse in _VAD.items()},
    _VAD_PROBABILITIES: _boolean,
    _PARTIAL_ITN: _boolean,
    _FIRST_WINDOW: _milliseconds,
    "enable_automatic_language_detection": _no_detection,
    "task": _transcribe,
    **dict.fromkeys(_LANGUAGES, str),
}
# Every key that a request may have, in the order of the documentation.
KEYS = tuple(_PARSERS)


def read_custom(sent: Mapping[str, str], language_code: str) -> Custom:
    """Return what a request's custom configuration asks of a model of this language.

    Raises:
        RequestError: A key is not known, or its value cannot be.
    """
    values: dict[str, Any] = {key: _parse(key, text) for key, text in sent.items()}
    for key in _LANGUAGES:
        if values.get(key, language_code) != language_code:
            raise _refused(key, sent[key], f"{language_code!r}, the model's language")
    vad = {name: values[key] for name in _VAD if (key := f"{_VAD_PREFIX}{name}") in values}
    return Custom(
        vad=VadOptions(endpointing=values.get(_VAD_ENDPOINTING), **vad),
        vad_probabilities=values.get(_VAD_PROBABILITIES, False),
        partial_itn=values.get(_PARTIAL_ITN, False),
        stop_history_eou=values.get(_FIRST_WINDOW),
    )


def _parse(key: str, text: str) -> object:
    if key not in _PARSERS:
        known = ", ".join(KEYS)
        raise RequestError(
            f"Error: custom_configuration key {key[:_SHOWN]!r} is not known. Known are: {known}."
        )
    try:
        return _PARSERS[key](text)
    except ValueError as error:
        raise _refused(key, text, str(error)) from None


def _refused(key: str, text: str, wanted: str) -> RequestError:
    return RequestError(f"Error: custom_configuration {key} is {text[:_SHOWN]!r}, not {wanted}.")
