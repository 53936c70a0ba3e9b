"""Writing a pipeline into a model repository: its acoustic models, and what is around them."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from typing import TYPE_CHECKING

import yaml

from riva_speech.asr import loading, writer
from riva_speech.asr.pipeline import ONLINE
from riva_speech.errors import UnsupportedError
from riva_speech.repository import VERSION, Batching, ModelConfig, write_model
from riva_speech.servicemaker import batches
from riva_speech.servicemaker.batches import Range
from riva_speech.servicemaker.families import ctc
from riva_speech.servicemaker.for_cuda import write_for_cuda
from riva_speech.servicemaker.pipelines import tensors
from riva_speech.servicemaker.pipelines.layout import (
    ACOUSTIC,
    DECODER,
    FEATURIZER,
    TEXT,
    VAD,
    AcousticModel,
    acoustic_models,
    options_of,
)
from riva_speech.servicemaker.targets import ONNX_RUNTIME_CUDA
from riva_speech.servicemaker.widening import in_floating_point
from riva_speech.sessions.onnx import OnnxSession, save_optimised
from riva_speech.sessions.opening import GRAPH_FILE, PLAN_FILE
from riva_speech.text.vocabulary import Vocabulary

if TYPE_CHECKING:
    from pathlib import Path

    from riva_speech.archive import ArchiveReader
    from riva_speech.asr.pipeline import PipelineConfig
    from riva_speech.servicemaker.engines import EngineBuilder
    from riva_speech.servicemaker.targets import Target
    from riva_speech.text.vocabulary import VocabularyType

# Most whole utterances are some ten seconds long: engines are the fastest there.
_USUAL_FRAMES = 1000
# Artefacts that only some pipelines have; they are deployed by their own names.
_OF_DECODERS = (loading.TOKENIZER_FILE, loading.LEXICON_FILE, loading.LANGUAGE_MODEL_FILE)
_OPTIONAL = (
    *(f"{DECODER}-{name}" for name in _OF_DECODERS),
    f"{VAD}-{loading.VAD_FILE}",
    *(f"{TEXT}-{name}" for name in writer.FILES),
)
# What Triton's Python backend loads; the Python that it starts must have this package.
_MODEL_FILE = "model.py"
_PIPELINE_CODE = (
    "from riva_speech.triton.recognition import TritonPythonModel as TritonPythonModel\n"
)
_ACOUSTIC_CODE = "from riva_speech.triton.acoustic import TritonPythonModel as TritonPythonModel\n"


class Source:
    """The graphs of an RMIR, each unpacked once, beside the weights that they share.

    Where they are for a GPU, those of int8 weights multiply in floating point.
    """

    def __init__(self, rmir: ArchiveReader, folder: Path, *, for_gpu: bool = False) -> None:
        self.rmir = rmir
        self._folder = folder
        self._for_gpu = for_gpu

    def graph(self, model: AcousticModel) -> Path:
        """Return a graph's file; its weights lie beside it."""
        for path in self.weights():
            self._unpacked(path.name)
        graph = self._unpacked(model.graph)
        return in_floating_point(graph) if self._for_gpu else graph

    def weights(self) -> list[Path]:
        """Return the files that graphs refer to; they exist once a graph was asked for."""
        prefix = f"{ACOUSTIC}-"
        names = [name for name in self.rmir.names if name.startswith(prefix)]
        shared = [name.removeprefix(prefix) for name in names if not name.endswith(".onnx")]
        return [self._folder / name for name in shared]

    def vocabulary(self, kind: VocabularyType) -> Vocabulary:
        """Return the tokens of the graphs, in the order of their outputs."""
        path = self._folder / ctc.VOCABULARY
        if not path.exists():
            self.rmir.extract(f"{DECODER}-{ctc.VOCABULARY}", path)
        return Vocabulary.load(path, kind)

    def _unpacked(self, name: str) -> Path:
        path = self._folder / name
        if not path.exists():
            self.rmir.extract(f"{ACOUSTIC}-{name}", path)
        return path


def write_acoustic_model(
    source: Source, pipeline: PipelineConfig, model: AcousticModel, folder: Path, target: Target
) -> None:
    """Write an acoustic model's folder; nothing is stored twice where the disk has links."""
    batch = batches.of_graph(options_of(source.rmir), pipeline.type)
    version = write_model(folder, acoustic_config(source, pipeline, model, target, batch))
    if target.optimize:
        weights = ctc.SHARED_WEIGHTS
        save_optimised(source.graph(model), version / GRAPH_FILE, weights=weights)
    else:
        if target.runtime == ONNX_RUNTIME_CUDA:
            write_for_cuda(source.graph(model), version / GRAPH_FILE)
        else:
            _link(source.graph(model), version / GRAPH_FILE)
        for path in source.weights():
            _link(path, version / path.name)
    if target.backend == "python":
        (version / _MODEL_FILE).write_text(_ACOUSTIC_CODE)


def write_engine(
    graph: Path,
    config: ModelConfig,
    pipeline: PipelineConfig,
    model: AcousticModel,
    folder: Path,
    builder: EngineBuilder,
) -> None:
    """Write an acoustic model's folder with the engine that a graph becomes.

    ``config`` is what ``acoustic_config`` gives for it.

    Raises:
        UnsupportedError: The graph is a transducer's prediction network and joint.
    """
    if model.parameter == loading.DECODER_JOINT_MODEL:
        raise UnsupportedError(
            f"{model.directory} decodes a transducer, and this version makes no engine of that",
            hint="deploy with --runtime=onnxruntime",
        )
    first = model.parameter == loading.FIRST_ACOUSTIC_MODEL
    engine = builder.build(graph, config.inputs, frames(pipeline, first=first))
    version = write_model(folder, replace(config, parameters=builder.stamp))
    (version / PLAN_FILE).write_bytes(engine)


def acoustic_config(
    source: Source, pipeline: PipelineConfig, model: AcousticModel, target: Target, batch: Range
) -> ModelConfig:
    """Say what a graph takes; the batch of a transducer's second one is its caller's affair."""
    name, backend, on_gpu = model.directory, target.backend, target.on_gpu
    outcomes = source.vocabulary(pipeline.acoustic.vocabulary_type).blank + 1
    shapes = OnnxSession(source.graph(model), as_written=True).shapes()
    if model.parameter == loading.DECODER_JOINT_MODEL:
        inputs, outputs = tensors.decoder_joint_tensors(pipeline.acoustic, outcomes)
        inputs, outputs = (tensors.fitted(some, shapes, skip=0) for some in (inputs, outputs))
        return ModelConfig(name, backend, 0, inputs, outputs, on_gpu=on_gpu)
    inputs, outputs = tensors.graph_tensors(pipeline, outcomes)
    inputs, outputs = (tensors.fitted(some, shapes, skip=1) for some in (inputs, outputs))
    return ModelConfig(
        name, backend, batch.most, inputs, outputs, on_gpu=on_gpu, batching=batch.batching
    )


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
        max_batch_size=batches.of_pipeline(options_of(rmir), pipeline.type).most,
        inputs=tensors.PIPELINE_INPUTS,
        outputs=tensors.PIPELINE_OUTPUTS,
        parameters={
            "type": pipeline.type,
            "language_code": pipeline.language_code,
            **references,
        },
        stateful=pipeline.type == ONLINE,
        # Utterances are of any length; the pipeline itself joins what goes into one run.
        batching=Batching(ragged=pipeline.type != ONLINE),
    )
    version = write_model(folder, config)
    rmir.extract(f"{FEATURIZER}-{ctc.FEATURIZER}", version / loading.FEATURIZER_FILE)
    rmir.extract(f"{DECODER}-{ctc.VOCABULARY}", version / loading.VOCABULARY_FILE)
    for artifact in _OPTIONAL:
        if artifact in rmir.names:
            _extract_shared(rmir, artifact, version / artifact.partition("-")[2])
    text = yaml.safe_dump(pipeline.to_mapping(), sort_keys=False)
    (version / loading.PIPELINE_FILE).write_text(text)
    (version / _MODEL_FILE).write_text(_PIPELINE_CODE)
