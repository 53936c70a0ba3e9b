"""The pipeline ``speech_recognition``: features, acoustic model, decoder, endpointing.

An RMIR holds one pipeline, or two that share their weights: one for streams and one for whole
utterances. Each is deployed as Triton models: ``riva-onnx-<name>-am-streaming[-offline]`` is the
acoustic model (with a twin ``…-first`` that begins streams), ``<name>-asr-bls-ensemble`` what comes
before and after it.
"""

from __future__ import annotations

import argparse
import os
import shutil
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from riva_speech.asr import loading
from riva_speech.asr.pipeline import (
    OFFLINE,
    ONLINE,
    AcousticConfig,
    EndpointingConfig,
    PipelineConfig,
    StreamingConfig,
)
from riva_speech.audio.features import LogMel
from riva_speech.errors import DamagedArchiveError, UnsupportedError, UsageError
from riva_speech.repository import PIPELINE_SUFFIX, VERSION, ModelConfig, Tensor, write_model
from riva_speech.servicemaker import agreement
from riva_speech.servicemaker.families import ctc
from riva_speech.servicemaker.pipelines import decoders
from riva_speech.servicemaker.quantisation import quantise

if TYPE_CHECKING:
    from riva_speech.archive import ArchiveReader

NAME = "speech_recognition"

_INT8 = "int8"
_DEFAULT_OFFLINE_CHUNK = 240.0
_DEFAULT_OFFLINE_PADDING = 10.0
_SUPPORTED_CLASSES = tuple(f"nemo.collections.asr.models.{name}" for name in ctc.CLASSES)
# Artefacts of an RMIR are named <component>-<artefact of the .riva>.
_ACOUSTIC, _FEATURIZER, _DECODER = "acoustic_model", "featurizer", "decoder"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options, spelt as those of the official riva-build."""
    parser.add_argument("--name", default="riva-asr", help="model name (default: %(default)s)")
    parser.add_argument(
        "--language_code", default="en-US", help="language to register (default: %(default)s)"
    )
    parser.add_argument(
        "--offline", action="store_true", help="build for whole utterances instead of streams"
    )
    parser.add_argument(
        "--streaming",
        type=_boolean,
        nargs="?",
        const=True,
        metavar="BOOL",
        help="build for streams; with --offline, build both (default: unless --offline)",
    )
    parser.add_argument(
        "--chunk_size",
        type=float,
        metavar="SECONDS",
        help="new audio a step: for streams one of the model's look-aheads (default: its first), "
        f"for whole utterances the longest run (default: {_DEFAULT_OFFLINE_CHUNK:g} or what fits); "
        "where both are built, a look-ahead is for streams",
    )
    parser.add_argument(
        "--padding_size",
        type=float,
        metavar="SECONDS",
        default=_DEFAULT_OFFLINE_PADDING,
        help="context on both sides of a longer recording's chunks (default: %(default)g)",
    )
    parser.add_argument(
        "--ms_per_timestep", type=int, metavar="MS", help="check the model's output stride"
    )
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
        f"(but for {agreement.TOLERANCE:.0%} of the steps; default: report on noise)",
    )
    decoders.add_arguments(parser, _boolean)
    for field in fields(EndpointingConfig):
        parser.add_argument(
            f"--endpointing.{field.name}",
            type=type(field.default),
            default=field.default,
            metavar="MS" if field.name.endswith("history") else "SHARE",
            help="(default: %(default)s)",
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
        raise UsageError(f"{NAME} takes one .riva file, and {len(sources)} were given")
    (source,) = sources
    if source.metadata.get("obj_cls") not in _SUPPORTED_CLASSES:
        raise UnsupportedError(
            f"{source.path} holds a {source.metadata.get('obj_cls')}, which {NAME} does not take"
        )
    acoustic = AcousticConfig.from_mapping(source.metadata.get("acoustic"))
    pipelines = _configure(acoustic, options)
    artifacts = {}
    for component, name in _needed(pipelines):
        artifacts[f"{component}-{name}"] = folder / name
        source.extract(name, folder / name)
    if getattr(options, "nn.weights") == _INT8:
        _round_weights(source, pipelines, getattr(options, "nn.check_audio"), folder)
    for name, path in decoders.artifacts(source, acoustic, options, folder).items():
        artifacts[f"{_DECODER}-{name}"] = path
    metadata = {
        "pipeline": NAME,
        "weights": getattr(options, "nn.weights"),
        "pipelines": [one.to_mapping() for one in pipelines],
    }
    return metadata, artifacts


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
    built = (model.graph for one in pipelines for model in acoustic_models(one))
    graphs = dict.fromkeys([ctc.OFFLINE_GRAPH, *built])
    quantise([folder / name for name in graphs], folder / ctc.SHARED_WEIGHTS)
    log_mel = LogMel.load(pipelines[0].acoustic.features, folder / ctc.FEATURIZER)
    agreement.check(original / ctc.OFFLINE_GRAPH, folder / ctc.OFFLINE_GRAPH, log_mel, recordings)


def _needed(pipelines: list[PipelineConfig]) -> list[tuple[str, str]]:
    """Return the components' artefacts, each once."""
    return [
        (_FEATURIZER, ctc.FEATURIZER),
        (_DECODER, ctc.VOCABULARY),
        (_ACOUSTIC, ctc.SHARED_WEIGHTS),
        *((_ACOUSTIC, model.graph) for one in pipelines for model in acoustic_models(one)),
    ]


def _configure(acoustic: AcousticConfig, options: argparse.Namespace) -> list[PipelineConfig]:
    _check(acoustic, options)
    online = not options.offline if options.streaming is None else options.streaming
    if not (online or options.offline):
        raise UsageError("--streaming=False leaves nothing to build", hint="add --offline")
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
    for option in ("chunk_size", "padding_size"):
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
        raise UnsupportedError(
            "the model is not cache-aware, and streams need that in this version",
            hint="build it for whole utterances with --offline",
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
    return _pipeline(name, ONLINE, replace(acoustic, streaming=(graph,)), options, chosen)


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
    """Configure a pipeline for whole utterances; its longest run must fit the model's positions."""
    padding = options.padding_size
    longest = acoustic.max_steps * acoustic.ms_per_timestep / 1000 - 2 * padding
    chunk = chunk_size or min(_DEFAULT_OFFLINE_CHUNK, longest)
    if not 0 < chunk <= longest:
        raise UsageError(
            f"--chunk_size={chunk:g} with --padding_size={padding:g} on both sides is longer than "
            f"the model's {acoustic.max_steps} steps",
            hint=f"choose at most {max(longest, 0):g} s, or less padding",
        )
    plain = replace(acoustic, streaming=())
    return replace(_pipeline(name, OFFLINE, plain, options, chunk), padding_size=padding)


def _pipeline(
    name: str, kind: str, acoustic: AcousticConfig, options: argparse.Namespace, chunk_size: float
) -> PipelineConfig:
    return PipelineConfig(
        name=name,
        type=kind,
        language_code=options.language_code,
        acoustic=acoustic,
        chunk_size=chunk_size,
        decoder=decoders.configure(options),
        endpointing=_endpointing(options),
    )


def _endpointing(options: argparse.Namespace) -> EndpointingConfig:
    names = [field.name for field in fields(EndpointingConfig)]
    try:
        return EndpointingConfig(**{one: getattr(options, f"endpointing.{one}") for one in names})
    except ValueError as error:
        raise UsageError(f"--endpointing: {error}") from error


def pipelines_of(rmir: ArchiveReader) -> list[PipelineConfig]:
    """Return the pipelines that an RMIR describes.

    Raises:
        DamagedArchiveError: The description is malformed.
    """
    entries = rmir.metadata.get("pipelines")
    if not isinstance(entries, list) or not entries:
        raise DamagedArchiveError(f"{rmir.path} describes no pipeline")
    pipelines = [PipelineConfig.from_mapping(entry) for entry in entries]
    for pipeline in pipelines:
        if "/" in pipeline.name or pipeline.name.startswith("."):
            raise DamagedArchiveError(f"{rmir.path} names a pipeline {pipeline.name!r}")
    return pipelines


@dataclass(frozen=True)
class AcousticModel:
    """One graph of a pipeline: its folder, its artefact, and the parameter that refers to it."""

    directory: str
    graph: str
    parameter: str


def acoustic_models(pipeline: PipelineConfig) -> list[AcousticModel]:
    """Return a pipeline's graphs: one for whole utterances, two for streams."""
    directory = f"riva-onnx-{pipeline.name}-am-streaming"
    if pipeline.type == OFFLINE:
        offline = AcousticModel(f"{directory}-offline", ctc.OFFLINE_GRAPH, loading.ACOUSTIC_MODEL)
        return [offline]
    following = ctc.streaming_graph_name(pipeline.streaming)
    first = ctc.streaming_graph_name(pipeline.streaming, first=True)
    return [
        AcousticModel(directory, following, loading.ACOUSTIC_MODEL),
        AcousticModel(f"{directory}-first", first, loading.FIRST_ACOUSTIC_MODEL),
    ]


def pipeline_directory(pipeline: PipelineConfig) -> str:
    """Return the name of the folder of the pipeline itself."""
    return pipeline.name + PIPELINE_SUFFIX


def write_acoustic_model(
    rmir: ArchiveReader, pipeline: PipelineConfig, model: AcousticModel, target: Path
) -> None:
    """Write an acoustic model's folder; weights that this RMIR has given another are linked."""
    inputs, outputs = _tensors(pipeline)
    version = write_model(target, ModelConfig(target.name, "onnxruntime", 1, inputs, outputs))
    rmir.extract(f"{_ACOUSTIC}-{model.graph}", version / loading.GRAPH_FILE)
    _extract_shared(rmir, f"{_ACOUSTIC}-{ctc.SHARED_WEIGHTS}", version / ctc.SHARED_WEIGHTS)


def _extract_shared(rmir: ArchiveReader, name: str, path: Path) -> None:
    """Write a file of a staged model, or link it where this RMIR has given it to another."""
    twins = path.parents[2].glob(f"*/{VERSION}/{path.name}")
    # A link in the staging folder is a model of another deployment.
    twin = next((twin for twin in twins if not twin.parents[1].is_symlink()), None)
    if twin is None:
        rmir.extract(name, path)
    else:
        _link(twin, path)


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # a file system without links
        shutil.copyfile(source, target)


def write_pipeline(rmir: ArchiveReader, pipeline: PipelineConfig, target: Path) -> None:
    """Write the pipeline's own folder: features, vocabulary and configuration."""
    references = {model.parameter: model.directory for model in acoustic_models(pipeline)}
    config = ModelConfig(
        name=target.name,
        backend="python",
        max_batch_size=1,
        inputs=(
            Tensor("AUDIO_SIGNAL", "FP32", (-1,)),
            Tensor("SAMPLE_RATE", "UINT32", (1,)),
            Tensor("END_FLAG", "UINT32", (1,)),
        ),
        outputs=(
            Tensor("FINAL_TRANSCRIPTS", "STRING", (-1,)),
            Tensor("FINAL_TRANSCRIPTS_SCORE", "FP32", (-1,)),
            Tensor("FINAL_WORDS_START_END", "INT32", (-1, 2)),
            Tensor("PARTIAL_TRANSCRIPTS", "STRING", (-1,)),
            Tensor("AUDIO_PROCESSED", "FP32", (1,)),
        ),
        parameters={
            "type": pipeline.type,
            "language_code": pipeline.language_code,
            **references,
        },
        stateful=pipeline.type == ONLINE,
    )
    version = write_model(target, config)
    rmir.extract(f"{_FEATURIZER}-{ctc.FEATURIZER}", version / loading.FEATURIZER_FILE)
    rmir.extract(f"{_DECODER}-{ctc.VOCABULARY}", version / loading.VOCABULARY_FILE)
    for name in (loading.LEXICON_FILE, loading.LANGUAGE_MODEL_FILE):
        if f"{_DECODER}-{name}" in rmir.names:
            _extract_shared(rmir, f"{_DECODER}-{name}", version / name)
    text = yaml.safe_dump(pipeline.to_mapping(), sort_keys=False)
    (version / loading.PIPELINE_FILE).write_text(text)


def _tensors(pipeline: PipelineConfig) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """Return the inputs and outputs of NeMo's exported graphs."""
    n_mels = pipeline.acoustic.features.n_mels
    inputs = [
        Tensor("audio_signal", "FP32", (n_mels, -1)),
        Tensor("length", "INT64", (1,), per_entry=True),
    ]
    outputs = [Tensor("logprobs", "FP32", (-1, -1))]
    if pipeline.type == OFFLINE:
        return tuple(inputs), tuple(outputs)
    streaming = pipeline.streaming
    caches = [
        Tensor("cache_last_channel{}", "FP32", streaming.channel_cache),
        Tensor("cache_last_time{}", "FP32", streaming.time_cache),
        Tensor("cache_last_channel{}_len", "INT64", (1,), per_entry=True),
    ]
    inputs += [replace(tensor, name=tensor.name.format("")) for tensor in caches]
    outputs.append(Tensor("encoded_lengths", "INT64", (1,), per_entry=True))
    outputs += [replace(tensor, name=tensor.name.format("_next")) for tensor in caches]
    return tuple(inputs), tuple(outputs)
