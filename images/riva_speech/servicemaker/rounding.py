"""Graphs that get int8 weights while they are deployed, and whether the result will do."""

from __future__ import annotations

import logging
import shutil
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from riva_speech.asr.loading import load_recognizer
from riva_speech.asr.sharing import Shared
from riva_speech.errors import SpeechError
from riva_speech.servicemaker import agreement
from riva_speech.servicemaker.families import ctc
from riva_speech.servicemaker.pipelines import layout, writing
from riva_speech.servicemaker.quantisation import quantise
from riva_speech.sessions.onnx import OnnxSession

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from riva_speech.asr.loading import Recognizer
    from riva_speech.audio.features import Samples
    from riva_speech.servicemaker.agreement import Agreement
    from riva_speech.servicemaker.targets import Accuracy

_log = logging.getLogger("riva_speech.riva_deploy")


@dataclass(frozen=True)
class Judgement:
    """How one pipeline hears with int8 weights, and whether that is near enough."""

    pipeline: str
    found: Agreement
    tolerance: float

    @property
    def will_do(self) -> bool:
        """Whether few enough steps have another best token."""
        return self.found.changed <= self.tolerance

    def entry(self) -> dict[str, Any]:
        """Return what the report says."""
        return {**asdict(self.found), "tolerance": self.tolerance}


def rounded(
    source: writing.Source, graphs: Iterable[layout.AcousticModel], folder: Path
) -> writing.Source:
    """Return a source in ``folder`` whose graphs have int8 weights.

    Raises:
        UnsupportedError: The package onnx is not installed.
        DamagedArchiveError: A graph is none.
    """
    paths = dict.fromkeys(source.graph(graph) for graph in graphs)
    for path in (*paths, *source.weights()):
        shutil.copyfile(path, folder / path.name)
    quantise([folder / path.name for path in paths], folder / ctc.SHARED_WEIGHTS)
    return writing.Source(source.rmir, folder)


def judge(
    pipeline: Path,
    plain: Mapping[str, Path],
    lowered: Mapping[str, Path],
    accuracy: Accuracy,
) -> Judgement:
    """Let a staged pipeline hear with both kinds of weights.

    Args:
        pipeline: Its folder.
        plain: The source's graph for each folder of an acoustic model.
        lowered: The same graphs with int8 weights.
        accuracy: What they hear, and how far apart they may be.

    Raises:
        ArtifactMissingError: There is nothing at one of the recordings' paths.
        UsageError: One of them is none.
        SpeechError: The pipeline does not run.
    """
    shared = Shared()
    one, other = (_recognizer(pipeline, graphs, shared) for graphs in (plain, lowered))
    sounds = agreement.load_sounds(accuracy.recordings, one.config.acoustic.features.sample_rate)
    name = one.config.name
    try:
        found = agreement.compare(_heard(one, sounds), _heard(other, sounds))
    except Exception as error:
        raise SpeechError(f"the pipeline {name} does not run: {error}") from error
    _log.info("int8 weights of %s on %s: %s", name, _what(accuracy), found)
    return Judgement(name, found, accuracy.tolerance)


def _recognizer(pipeline: Path, graphs: Mapping[str, Path], shared: Shared) -> Recognizer:
    return load_recognizer(
        pipeline, open_session=lambda folder: OnnxSession(graphs[folder.name]), shared=shared
    )


def _heard(recognizer: Recognizer, sounds: Iterable[Samples]) -> list[Any]:
    return [agreement.encoded(recognizer, samples) for samples in sounds]


def _what(accuracy: Accuracy) -> str:
    return ", ".join(map(str, accuracy.recordings)) or "noise (--check_audio names recordings)"


def worst(judgements: Iterable[Judgement]) -> str:
    """Return why the worst of several pipelines will not do; empty where all will."""
    found = max(judgements, key=lambda one: one.found.changed)
    if found.will_do:
        return ""
    return (
        f"hears otherwise with int8 weights: {100 * found.found.changed:.1f} % of the best tokens "
        f"of {found.pipeline} change, and at most {100 * found.tolerance:g} % are tolerated"
    )


def refuse_or_tell(reason: str, accuracy: Accuracy) -> None:
    """Say that a model keeps its own weights.

    Raises:
        SpeechError: int8 is required.
    """
    if accuracy.required:
        raise SpeechError(reason, hint="leave --require_precision out to deploy it in fp32")
    _log.warning("%s: it is deployed in fp32", reason)
