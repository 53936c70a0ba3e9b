"""From options to pipelines: what is asked for, held against what the model can do."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import TYPE_CHECKING

from riva_speech.asr.pipeline import (
    LONGEST_SILENCE,
    OFFLINE,
    ONLINE,
    AcousticConfig,
    EndpointingConfig,
    PipelineConfig,
)
from riva_speech.errors import UsageError
from riva_speech.servicemaker.pipelines import decoders, official, text, vad

if TYPE_CHECKING:
    import argparse

    from riva_speech.asr.streaming_config import StreamingConfig

# Options in seconds that are whole steps of the model.
_STEPS = (
    "chunk_size",
    "padding_size",
    "left_padding_size",
    "right_padding_size",
    "leading_silence",
)
# Seconds.
OFFLINE_CHUNK = 240.0
OFFLINE_PADDING = 10.0
BUFFERED_CHUNK = 0.8
BUFFERED_PADDING = 1.6


def configure(acoustic: AcousticConfig, options: argparse.Namespace) -> list[PipelineConfig]:
    """Return the pipelines to build: for streams, for whole utterances, or both.

    Raises:
        UsageError: An option does not fit the model, or two do not fit each other.
    """
    _check(acoustic, options)
    official.check(options, acoustic.head)
    online = not options.offline if options.streaming is None else options.streaming
    if not (online or options.offline):
        raise UsageError("--streaming=False leaves nothing to build", hint="add --offline")
    if not online:
        decoders.refuse_of_streams(options)
    both = online and options.offline
    chunks = _chunk_sizes(acoustic, options.chunk_size) if both else _either(options.chunk_size)
    pipelines = []
    if online:
        name = f"{options.name}-streaming" if both else options.name
        pipelines.append(_online(name, acoustic, options, chunks[ONLINE]))
    if options.offline:
        name = f"{options.name}-offline" if both else options.name
        pipelines.append(_offline(name, acoustic, options, chunks[OFFLINE]))
    return pipelines


def _check(acoustic: AcousticConfig, options: argparse.Namespace) -> None:
    stride = acoustic.ms_per_timestep
    if options.ms_per_timestep not in (None, stride):
        raise UsageError(
            f"--ms_per_timestep={options.ms_per_timestep} is wrong: this model's is {stride}"
        )
    for option in ("leading_silence", "trailing_silence"):
        if not 0 <= (seconds := getattr(options, option)) <= LONGEST_SILENCE:
            raise UsageError(f"--{option}={seconds:g} is not 0 to {LONGEST_SILENCE:g} s")
    for option in _STEPS:
        value = getattr(options, option)
        if value is not None and (value < 0 or abs(value * 1000 / stride % 1) > 1e-6):  # noqa: PLR2004 - rounding
            raise UsageError(
                f"--{option}={value:g} is not a multiple of the model's output stride, {stride} ms"
            )
    if not options.name or "/" in options.name or options.name.startswith("."):
        raise UsageError(f"--name={options.name} cannot be the name of a folder")


def _online(
    name: str, acoustic: AcousticConfig, options: argparse.Namespace, chunk_size: float | None
) -> PipelineConfig:
    if not acoustic.streaming:
        chunk = chunk_size or BUFFERED_CHUNK
        return _padded(name, ONLINE, acoustic, options, chunk, BUFFERED_PADDING)
    if any(_paddings(options, 0.0)) and not options.offline:
        raise UsageError(
            "the model is cache-aware: its streams need no padding", hint="leave the option out"
        )
    sizes = {_chunk_seconds(acoustic, one): one for one in reversed(acoustic.streaming)}
    chosen = chunk_size or _chunk_seconds(acoustic, acoustic.streaming[0])
    if round(chosen, 3) not in sizes:
        offered = ", ".join(f"{size:g}" for size in sorted(sizes))
        raise UsageError(
            f"--chunk_size={chosen:g} is not one of the model's look-aheads",
            hint=f"choose one of {offered}",
        )
    graph = sizes[round(chosen, 3)]
    of_streams = replace(acoustic, streaming=(graph,), offline_context=None)
    return _pipeline(name, ONLINE, of_streams, options, chosen)


def _either(chunk_size: float | None) -> dict[str, float | None]:
    return {ONLINE: chunk_size, OFFLINE: chunk_size}


def _chunk_sizes(acoustic: AcousticConfig, chunk_size: float | None) -> dict[str, float | None]:
    """Tell which of two pipelines a chunk size is for: a look-ahead can only be meant for streams.

    No whole utterance is cut into pieces as short as that.
    """
    look_aheads = {_chunk_seconds(acoustic, one) for one in acoustic.streaming}
    for_streams = chunk_size is not None and round(chunk_size, 3) in look_aheads
    return {
        ONLINE: chunk_size if for_streams else None,
        OFFLINE: None if for_streams else chunk_size,
    }


def _chunk_seconds(acoustic: AcousticConfig, streaming: StreamingConfig) -> float:
    return round(streaming.chunk_steps * acoustic.ms_per_timestep / 1000, 3)


def _offline(
    name: str, acoustic: AcousticConfig, options: argparse.Namespace, chunk_size: float | None
) -> PipelineConfig:
    """Configure a pipeline for whole utterances."""
    chunk = chunk_size
    if chunk is None:
        context = sum(_paddings(options, OFFLINE_PADDING))
        longest = acoustic.max_steps * acoustic.ms_per_timestep / 1000 - context
        chunk = min(OFFLINE_CHUNK, longest)
    plain = _padded(name, OFFLINE, acoustic, options, chunk, OFFLINE_PADDING)
    return replace(plain, trailing_silence=options.trailing_silence)


def _paddings(options: argparse.Namespace, default: float) -> tuple[float, float]:
    """Return the seconds of context left and right of a chunk."""
    both = default if options.padding_size is None else options.padding_size
    given = (options.left_padding_size, options.right_padding_size)
    left, right = (both if one is None else one for one in given)
    return left, right


def _padded(
    name: str,
    kind: str,
    acoustic: AcousticConfig,
    options: argparse.Namespace,
    chunk: float,
    padding: float,
) -> PipelineConfig:
    """Configure a pipeline whose runs have context; they must fit the model's positions."""
    left, right = _paddings(options, padding)
    longest = acoustic.max_steps * acoustic.ms_per_timestep / 1000 - left - right
    if not 0 < chunk <= longest:
        raise UsageError(
            f"--chunk_size={chunk:g} with {left:g} s and {right:g} s of padding is longer than the "
            f"model's {acoustic.max_steps} steps",
            hint=f"choose at most {max(longest, 0):g} s, or less padding",
        )
    plain = _pipeline(name, kind, replace(acoustic, streaming=()), options, chunk)
    return replace(plain, left_padding_size=left, right_padding_size=right)


def _pipeline(
    name: str, kind: str, acoustic: AcousticConfig, options: argparse.Namespace, chunk_size: float
) -> PipelineConfig:
    return PipelineConfig(
        name=name,
        type=kind,
        language_code=options.language_code,
        acoustic=acoustic,
        chunk_size=chunk_size,
        leading_silence=options.leading_silence,
        decoder=decoders.configure(options, acoustic.head, kind),
        endpointing=_endpointing(options),
        text=text.configure(options),
        vad=vad.configure(options, acoustic.features.sample_rate),
    )


def _endpointing(options: argparse.Namespace) -> EndpointingConfig:
    names = [field.name for field in fields(EndpointingConfig)]
    try:
        return EndpointingConfig(**{one: getattr(options, f"endpointing.{one}") for one in names})
    except ValueError as error:
        raise UsageError(f"--endpointing: {error}") from error
