"""The pipeline ``speech_recognition``: features, acoustic model, decoder, endpointing.

An RMIR holds one pipeline, or two that share their weights: one for streams and one for whole
utterances. Each is deployed as Triton models: ``riva-onnx-<name>-am-streaming[-offline]`` is the
acoustic model (with a twin ``…-first`` that begins streams, and a ``…-decoder-joint`` for
transducers), ``<name>-asr-bls-ensemble`` what comes
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
from riva_speech.servicemaker.engines import EngineBuilder, Range
from riva_speech.servicemaker.families import ctc, models, transducer
from riva_speech.servicemaker.pipelines import decoders, official
from riva_speech.servicemaker.quantisation import quantise
from riva_speech.servicemaker.targets import Target
from riva_speech.sessions.onnx import save_optimised
from riva_speech.sessions.opening import GRAPH_FILE, PLAN_FILE

if TYPE_CHECKING:
    from riva_speech.archive import ArchiveReader

NAME = "speech_recognition"

_INT8 = "int8"
# What the name of the model that begins streams ends in.
_FIRST_SUFFIX = "-first"
# Most whole utterances are some ten seconds long: engines are the fastest there.
_USUAL_FRAMES = 1000
_DEFAULT_OFFLINE_CHUNK = 240.0
_DEFAULT_OFFLINE_PADDING = 10.0
_DEFAULT_BUFFERED_CHUNK = 0.8
_DEFAULT_BUFFERED_PADDING = 1.6
_SUPPORTED_CLASSES = tuple(f"nemo.collections.asr.models.{name}" for name in models.CLASSES)
DEFAULT_TARGET = Target()
# What Triton's Python backend loads; the Python that it starts must have this package.
_MODEL_FILE = "model.py"
_PIPELINE_CODE = (
    "from riva_speech.triton.recognition import TritonPythonModel as TritonPythonModel\n"
)
_ACOUSTIC_CODE = "from riva_speech.triton.acoustic import TritonPythonModel as TritonPythonModel\n"
# Artefacts of an RMIR are named <component>-<artefact of the .riva>.
_ACOUSTIC, _FEATURIZER, _DECODER = "acoustic_model", "featurizer", "decoder"


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
    parser.add_argument(
        "--chunk_size",
        type=float,
        metavar="SECONDS",
        help="new audio a step: for streams one of a cache-aware model's look-aheads (default: its "
        f"first), for others any (default: {_DEFAULT_BUFFERED_CHUNK:g}), for whole utterances the "
        f"longest run (default: {_DEFAULT_OFFLINE_CHUNK:g} or what fits); where both are built, a "
        "look-ahead is for streams",
    )
    defaults = (
        f"(default: {_DEFAULT_BUFFERED_PADDING:g} for streams, {_DEFAULT_OFFLINE_PADDING:g} for "
        "the chunks of longer recordings; cache-aware streams have none)"
    )
    for name, text in (
        ("left_padding_size", f"context before a chunk {defaults}"),
        ("right_padding_size", f"context after a chunk {defaults}"),
        ("padding_size", "both of the two above (default: theirs)"),
    ):
        parser.add_argument(f"--{name}", type=float, metavar="SECONDS", help=text)
    parser.add_argument(
        "--ms_per_timestep",
        type=int,
        metavar="MS",
        help="check the model's output stride (default: not checked)",
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
        f"(but for {agreement.TOLERANCE:.0%}% of the steps; default: report on noise)",
    )
    decoders.add_arguments(parser, _boolean)
    official.add_arguments(parser, _boolean)
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
        if acoustic.transducer:
            raise UnsupportedError("--nn.weights=int8 is not in this version for RNN-T and TDT")
        _round_weights(source, pipelines, getattr(options, "nn.check_audio"), folder)
    for name, path in decoders.artifacts(source, acoustic, options, folder).items():
        artifacts[f"{_DECODER}-{name}"] = path
    metadata = {
        "pipeline": NAME,
        "weights": getattr(options, "nn.weights"),
        "engine": official.recorded(options),
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
    official.check(options, acoustic.head)
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
    for option in ("chunk_size", "padding_size", "left_padding_size", "right_padding_size"):
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
        chunk = chunk_size or _DEFAULT_BUFFERED_CHUNK
        return _padded(name, ONLINE, acoustic, options, chunk, _DEFAULT_BUFFERED_PADDING)
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
    """Configure a pipeline for whole utterances."""
    chunk = chunk_size
    if chunk is None:
        context = sum(_paddings(options, _DEFAULT_OFFLINE_PADDING))
        longest = acoustic.max_steps * acoustic.ms_per_timestep / 1000 - context
        chunk = min(_DEFAULT_OFFLINE_CHUNK, longest)
    return _padded(name, OFFLINE, acoustic, options, chunk, _DEFAULT_OFFLINE_PADDING)


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
        decoder=decoders.configure(options, acoustic.head),
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


def acoustic_models(
    pipeline: PipelineConfig, target: Target = DEFAULT_TARGET
) -> list[AcousticModel]:
    """Return a pipeline's graphs: one for whole utterances, two for cache-aware streams.

    A transducer has one more, its prediction network and joint.
    """
    directory = f"{target.directory_prefix}{pipeline.name}-am-streaming"
    if pipeline.type == OFFLINE:
        directory += "-offline"
    if not pipeline.acoustic.streaming:
        graphs = [AcousticModel(directory, ctc.OFFLINE_GRAPH, loading.ACOUSTIC_MODEL)]
    else:
        following = ctc.streaming_graph_name(pipeline.streaming)
        first = ctc.streaming_graph_name(pipeline.streaming, first=True)
        graphs = [
            AcousticModel(directory, following, loading.ACOUSTIC_MODEL),
            AcousticModel(f"{directory}{_FIRST_SUFFIX}", first, loading.FIRST_ACOUSTIC_MODEL),
        ]
    if pipeline.acoustic.transducer:
        name, graph = f"{directory}-decoder-joint", transducer.DECODER_JOINT_GRAPH
        graphs.append(AcousticModel(name, graph, loading.DECODER_JOINT_MODEL))
    return graphs


def pipeline_directory(pipeline: PipelineConfig) -> str:
    """Return the name of the folder of the pipeline itself."""
    return pipeline.name + PIPELINE_SUFFIX


class Source:
    """The graphs of an RMIR, each unpacked once, beside the weights that they share."""

    def __init__(self, rmir: ArchiveReader, folder: Path) -> None:
        self.rmir = rmir
        self._folder = folder

    def graph(self, model: AcousticModel) -> Path:
        """Return a graph's file; its weights lie beside it."""
        for path in self.weights():
            self._unpacked(path.name)
        return self._unpacked(model.graph)

    def weights(self) -> list[Path]:
        """Return the files that graphs refer to; they exist once a graph was asked for."""
        prefix = f"{_ACOUSTIC}-"
        names = [name for name in self.rmir.names if name.startswith(prefix)]
        shared = [name.removeprefix(prefix) for name in names if not name.endswith(".onnx")]
        return [self._folder / name for name in shared]

    def _unpacked(self, name: str) -> Path:
        path = self._folder / name
        if not path.exists():
            self.rmir.extract(f"{_ACOUSTIC}-{name}", path)
        return path


def write_acoustic_model(
    source: Source, pipeline: PipelineConfig, model: AcousticModel, folder: Path, target: Target
) -> None:
    """Write an acoustic model's folder; nothing is stored twice where the disk has links."""
    config = _acoustic_config(pipeline, model, target)
    version = write_model(folder, config)
    if target.optimize:
        weights = ctc.SHARED_WEIGHTS
        save_optimised(source.graph(model), version / GRAPH_FILE, weights=weights)
    else:
        _link(source.graph(model), version / GRAPH_FILE)
        for path in source.weights():
            _link(path, version / path.name)
    if target.backend == "python":
        (version / _MODEL_FILE).write_text(_ACOUSTIC_CODE)


def write_engine(
    graph: Path,
    pipeline: PipelineConfig,
    model: AcousticModel,
    folder: Path,
    builder: EngineBuilder,
) -> None:
    """Write an acoustic model's folder with the engine that a graph becomes.

    Raises:
        UnsupportedError: The graph is a transducer's prediction network and joint.
    """
    if model.parameter == loading.DECODER_JOINT_MODEL:
        raise UnsupportedError(
            f"{model.directory} decodes a transducer, and this version makes no engine of that",
            hint="deploy with --runtime=onnxruntime",
        )
    config = _acoustic_config(pipeline, model, builder.target)
    first = model.parameter == loading.FIRST_ACOUSTIC_MODEL
    engine = builder.build(graph, config.inputs, frames(pipeline, first=first))
    version = write_model(
        folder, replace(config, parameters=builder.stamp, max_batch_size=builder.batch.most)
    )
    (version / PLAN_FILE).write_bytes(engine)


def _acoustic_config(pipeline: PipelineConfig, model: AcousticModel, target: Target) -> ModelConfig:
    batch, (inputs, outputs) = 1, _tensors(pipeline)
    if model.parameter == loading.DECODER_JOINT_MODEL:
        batch, (inputs, outputs) = 0, _decoder_joint_tensors(pipeline.acoustic)
    name = model.directory
    return ModelConfig(name, target.backend, batch, inputs, outputs, on_gpu=target.on_gpu)


def frames(pipeline: PipelineConfig, *, first: bool) -> Range:
    """Return how many feature frames a pipeline gives its graph at once.

    The chunks of a cache-aware stream are all of one size but for its ``first``; everything else is
    cut where it is longer than a chunk with padding on both sides.
    """
    if pipeline.acoustic.streaming:
        streaming = pipeline.streaming
        following = streaming.history_frames + streaming.chunk_frames
        count = streaming.first_frames if first else following
        return Range(count, count, count)
    frame_ms = pipeline.acoustic.features.frame_ms
    longest = pipeline.left_padding_size + pipeline.chunk_size + pipeline.right_padding_size
    most = round(1000 * longest) // frame_ms
    least = pipeline.acoustic.ms_per_timestep // frame_ms
    return Range(least, min(most, _USUAL_FRAMES), most)


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


def write_pipeline(
    rmir: ArchiveReader, pipeline: PipelineConfig, folder: Path, target: Target
) -> None:
    """Write the pipeline's own folder: features, vocabulary, configuration and Triton's way in."""
    references = {model.parameter: model.directory for model in acoustic_models(pipeline, target)}
    config = ModelConfig(
        name=folder.name,
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
            Tensor("PARTIAL_WORDS_START_END", "INT32", (-1, 2)),
            Tensor("AUDIO_PROCESSED", "FP32", (1,)),
        ),
        parameters={
            "type": pipeline.type,
            "language_code": pipeline.language_code,
            **references,
        },
        stateful=pipeline.type == ONLINE,
    )
    version = write_model(folder, config)
    rmir.extract(f"{_FEATURIZER}-{ctc.FEATURIZER}", version / loading.FEATURIZER_FILE)
    rmir.extract(f"{_DECODER}-{ctc.VOCABULARY}", version / loading.VOCABULARY_FILE)
    for name in (loading.LEXICON_FILE, loading.LANGUAGE_MODEL_FILE):
        if f"{_DECODER}-{name}" in rmir.names:
            _extract_shared(rmir, f"{_DECODER}-{name}", version / name)
    text = yaml.safe_dump(pipeline.to_mapping(), sort_keys=False)
    (version / loading.PIPELINE_FILE).write_text(text)
    (version / _MODEL_FILE).write_text(_PIPELINE_CODE)


def _tensors(pipeline: PipelineConfig) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """Return the inputs and outputs of NeMo's exported graphs."""
    n_mels = pipeline.acoustic.features.n_mels
    inputs = [
        Tensor("audio_signal", "FP32", (n_mels, -1)),
        Tensor("length", "INT64", (1,), per_entry=True),
    ]
    outputs = [Tensor("logprobs", "FP32", (-1, -1))]
    lengths = Tensor("encoded_lengths", "INT64", (1,), per_entry=True)
    if config := pipeline.acoustic.transducer:
        outputs = [Tensor("outputs", "FP32", (config.encoder_width, -1))]
    if not pipeline.acoustic.streaming:
        outputs += [lengths] if config else []
        return tuple(inputs), tuple(outputs)
    streaming = pipeline.streaming
    caches = [
        Tensor("cache_last_channel{}", "FP32", streaming.channel_cache),
        Tensor("cache_last_time{}", "FP32", streaming.time_cache),
        Tensor("cache_last_channel{}_len", "INT64", (1,), per_entry=True),
    ]
    inputs += [replace(tensor, name=tensor.name.format("")) for tensor in caches]
    outputs.append(lengths)
    outputs += [replace(tensor, name=tensor.name.format("_next")) for tensor in caches]
    return tuple(inputs), tuple(outputs)


def _decoder_joint_tensors(
    acoustic: AcousticConfig,
) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """Return the inputs and outputs of a transducer's second graph; all have their batch.

    The batch is not the first dimension of its states, so Triton leaves batches to the caller.
    """
    config = acoustic.transducer
    assert config is not None  # only transducers have this graph
    layers, width = config.state_shape
    inputs = (
        Tensor("encoder_outputs", "FP32", (-1, config.encoder_width, -1)),
        Tensor("targets", "INT32", (-1, -1)),
        Tensor("target_length", "INT32", (-1,)),
        Tensor("input_states_1", "FP32", (layers, -1, width)),
        Tensor("input_states_2", "FP32", (layers, -1, width)),
    )
    outputs = (
        Tensor("outputs", "FP32", (-1, -1, -1, -1)),
        Tensor("prednet_lengths", "INT32", (-1,)),
        Tensor("output_states_1", "FP32", (layers, -1, width)),
        Tensor("output_states_2", "FP32", (layers, -1, width)),
    )
    return inputs, outputs
