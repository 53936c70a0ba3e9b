"""What an RMIR and a repository call the parts of a pipeline: artefacts, and folders of models.

An RMIR holds one pipeline, or two that share their weights: one for streams and one for whole
utterances. Each is deployed as Triton models: ``riva-onnx-<name>-am-streaming[-offline]`` is the
acoustic model (with a twin ``...-first`` that begins streams, and a ``...-decoder-joint`` for
transducers), ``<name>-asr-bls-ensemble`` what comes before and after it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from riva_speech.asr import loading
from riva_speech.asr.pipeline import OFFLINE, PipelineConfig
from riva_speech.errors import DamagedArchiveError
from riva_speech.repository import PIPELINE_SUFFIX
from riva_speech.servicemaker.families import ctc, transducer
from riva_speech.servicemaker.targets import Target

if TYPE_CHECKING:
    from collections.abc import Mapping

    from riva_speech.archive import ArchiveReader

NAME = "speech_recognition"

# Artefacts of an RMIR are named <component>-<artefact of the .riva>.
ACOUSTIC, FEATURIZER, DECODER, TEXT, VAD = (
    "acoustic_model",
    "featurizer",
    "decoder",
    "text",
    "vad",
)
DEFAULT_TARGET = Target()
# What the name of the model that begins streams ends in.
_FIRST_SUFFIX = "-first"


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
        if {"/", "\0"} & set(pipeline.name) or pipeline.name.startswith("."):
            raise DamagedArchiveError(f"{rmir.path} names a pipeline {pipeline.name!r}")
    return pipelines


def options_of(rmir: ArchiveReader) -> Mapping[str, object]:
    """Return what riva-build noted for riva-deploy: option names and values."""
    options = rmir.metadata.get("engine")
    return options if isinstance(options, dict) else {}


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
