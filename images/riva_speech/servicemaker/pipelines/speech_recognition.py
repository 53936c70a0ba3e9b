"""The pipeline ``speech_recognition``: features, acoustic model, decoder, endpointing.

Here are its options, and an RMIR made of them and of a ``.riva``. Beside it:

    configuration  options -> pipelines
    decoders       the options and files of decoders
    text           the options and files of what happens to words
    vad            the options and the model of voice activity detection
    official       options that are recorded, have no effect, or are refused
    effects        how an option says which of these it is
    layout         what the parts are called, in an RMIR and in a repository
    tensors        their inputs and outputs
    writing        from an RMIR into a repository, for riva-deploy
"""

from __future__ import annotations

import argparse
import shutil
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from riva_speech.asr.pipeline import (
    LONGEST_SILENCE,
    AcousticConfig,
    EndpointingConfig,
    PipelineConfig,
)
from riva_speech.audio.features import LogMel
from riva_speech.errors import UnsupportedError, UsageError
from riva_speech.servicemaker import agreement
from riva_speech.servicemaker.families import ctc, models
from riva_speech.servicemaker.pipelines import (
    configuration,
    decoder_files,
    decoders,
    layout,
    official,
    text,
    vad,
)
from riva_speech.servicemaker.quantisation import quantise

if TYPE_CHECKING:
    from riva_speech.archive import ArchiveReader

_INT8 = "int8"
_ENDPOINTING = {
    "start_history": "window in which speech begins an utterance",
    "start_th": "share of that window that is no blank where one begins",
    "stop_history": "window in which blanks end an utterance; 0 ends none",
    "stop_th": "share of that window that is blank where one ends",
    "stop_history_eou": "shorter window after which an end is announced; 0 announces none",
    "stop_th_eou": "share of that window that is blank where an end is announced",
}
_SUPPORTED_CLASSES = tuple(f"nemo.collections.asr.models.{name}" for name in models.CLASSES)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options, spelt as those of the official riva-build."""
    parser.add_argument("--name", default="riva-asr", help="model name (default: %(default)s)")
    parser.add_argument(
        "--language_code", default="en-US", help="language to register (default: %(default)s)"
    )
    parser.add_argument(
        "--offline",
        action="store_true",
        help="build for whole utterances instead of streams (default: False)",
    )
    parser.add_argument(
        "--streaming",
        type=_boolean,
        nargs="?",
        const=True,
        metavar="BOOL",
        help="build for streams; with --offline, build both (default: unless --offline)",
    )
    _add_chunks(parser)
    _add_weights(parser)
    decoders.add_arguments(parser, _boolean)
    text.add_arguments(parser)
    vad.add_arguments(parser)
    official.add_arguments(parser, _boolean)
    for field in fields(EndpointingConfig):
        parser.add_argument(
            f"--endpointing.{field.name}",
            type=type(field.default),
            default=field.default,
            metavar="MS" if "history" in field.name else "SHARE",
            help=f"{_ENDPOINTING[field.name]} (default: %(default)s)",
        )


def _add_chunks(parser: argparse.ArgumentParser) -> None:
    """Declare how sound is cut."""
    parser.add_argument(
        "--chunk_size",
        type=float,
        metavar="SECONDS",
        help="new audio a step: for streams one of a cache-aware model's look-aheads, for other "
        "streams any, for whole utterances the longest run; where both are built, a look-ahead is "
        f"for streams (default: the first look-ahead, {configuration.BUFFERED_CHUNK:g} for other "
        f"streams, {configuration.OFFLINE_CHUNK:g} or what fits for whole utterances)",
    )
    defaults = (
        f"(default: {configuration.BUFFERED_PADDING:g} for streams, "
        f"{configuration.OFFLINE_PADDING:g} for the chunks of longer recordings; cache-aware "
        "streams have none)"
    )
    for name, explained in (
        ("left_padding_size", f"context before a chunk {defaults}"),
        ("right_padding_size", f"context after a chunk {defaults}"),
        ("padding_size", "both of the two above (default: theirs)"),
    ):
        parser.add_argument(f"--{name}", type=float, metavar="SECONDS", help=explained)
    parser.add_argument(
        "--leading_silence",
        type=float,
        default=0.0,
        metavar="SECONDS",
        help="silence that streams and whole utterances are heard with before them, up to "
        f"{LONGEST_SILENCE:g}: recordings may begin with their first word (default: %(default)g)",
    )
    parser.add_argument(
        "--trailing_silence",
        type=float,
        default=0.0,
        metavar="SECONDS",
        help="silence that whole utterances are heard with behind them, up to "
        f"{LONGEST_SILENCE:g}: recordings may be cut where their last word ends "
        "(default: %(default)g)",
    )
    parser.add_argument(
        "--ms_per_timestep",
        type=int,
        metavar="MS",
        help="check the model's output stride (default: not checked)",
    )


def _add_weights(parser: argparse.ArgumentParser) -> None:
    """Declare how the acoustic model computes."""
    parser.add_argument(
        "--nn.weights",
        choices=["fp32", _INT8],
        default="fp32",
        help="how weights are stored and computed with (default: %(default)s)",
    )
    parser.add_argument(
        "--nn.check_audio",
        type=Path,
        metavar="PATH",
        help="a recording, or a folder of them, that int8 weights must hear as the model's own do "
        f"but for {agreement.TOLERANCE:.0%}% of the steps (default: none, report on noise)",
    )


def _boolean(text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise argparse.ArgumentTypeError(f"{text!r} is neither True nor False")
    return text.lower() == "true"


def build(
    sources: list[ArchiveReader], options: argparse.Namespace, folder: Path
) -> tuple[dict[str, Any], dict[str, Path]]:
    """Make an RMIR's metadata and artefacts of a ``.riva`` archive; files go into ``folder``.

    Raises:
        UsageError: An option that does not fit the model, or more than one source.
        UnsupportedError: A source of a kind that this pipeline does not take.
    """
    if len(sources) != 1:
        raise UsageError(f"{layout.NAME} takes one .riva file, and {len(sources)} were given")
    (source,) = sources
    if source.metadata.get("obj_cls") not in _SUPPORTED_CLASSES:
        raise UnsupportedError(
            f"{source.path} holds a {source.metadata.get('obj_cls')}, which {layout.NAME} does not "
            "take"
        )
    acoustic = AcousticConfig.from_mapping(source.metadata.get("acoustic"))
    pipelines = configuration.configure(acoustic, options)
    artifacts = {}
    for component, name in _needed(pipelines):
        artifacts[f"{component}-{name}"] = folder / name
        source.extract(name, folder / name)
    if getattr(options, "nn.weights") == _INT8:
        if acoustic.transducer:
            raise UnsupportedError("--nn.weights=int8 is not in this version for RNN-T and TDT")
        _round_weights(source, pipelines, getattr(options, "nn.check_audio"), folder)
    artifacts |= _of_options(source, acoustic, options, folder)
    metadata = {
        "pipeline": layout.NAME,
        "obj_cls": source.metadata["obj_cls"],
        "weights": getattr(options, "nn.weights"),
        "engine": official.recorded(options),
        "pipelines": [one.to_mapping() for one in pipelines],
    }
    return metadata, artifacts


def _of_options(
    source: ArchiveReader, acoustic: AcousticConfig, options: argparse.Namespace, folder: Path
) -> dict[str, Path]:
    """Return the artefacts that options bring, by their names in an RMIR."""
    found = {
        layout.DECODER: decoder_files.artifacts(source, acoustic, options, folder),
        layout.TEXT: text.artifacts(options),
        layout.VAD: vad.artifacts(options),
    }
    return {
        f"{component}-{name}": path
        for component, paths in found.items()
        for name, path in paths.items()
    }


def _round_weights(
    source: ArchiveReader, pipelines: list[PipelineConfig], recordings: Path | None, folder: Path
) -> None:
    """Give the graphs in ``folder`` int8 weights, and hold them against the source's."""
    original = folder / "original"
    original.mkdir()
    for name in (ctc.OFFLINE_GRAPH, ctc.SHARED_WEIGHTS):
        source.extract(name, original / name)
    # The graph for whole utterances is rounded in any case: it is the one that is checked.
    shutil.copyfile(original / ctc.OFFLINE_GRAPH, folder / ctc.OFFLINE_GRAPH)
    built = (model.graph for one in pipelines for model in layout.acoustic_models(one))
    graphs = dict.fromkeys([ctc.OFFLINE_GRAPH, *built])
    quantise([folder / name for name in graphs], folder / ctc.SHARED_WEIGHTS)
    log_mel = LogMel.load(pipelines[0].acoustic.features, folder / ctc.FEATURIZER)
    agreement.check(original / ctc.OFFLINE_GRAPH, folder / ctc.OFFLINE_GRAPH, log_mel, recordings)


def _needed(pipelines: list[PipelineConfig]) -> list[tuple[str, str]]:
    """Return the components' artefacts, each once."""
    return [
        (layout.FEATURIZER, ctc.FEATURIZER),
        (layout.DECODER, ctc.VOCABULARY),
        (layout.ACOUSTIC, ctc.SHARED_WEIGHTS),
        *(
            (layout.ACOUSTIC, model.graph)
            for one in pipelines
            for model in layout.acoustic_models(one)
        ),
    ]
