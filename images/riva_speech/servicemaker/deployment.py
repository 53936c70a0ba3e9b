"""Deploying one RMIR: written beside the repository's models, run, then moved in."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from riva_speech import repository as repositories
from riva_speech import staging
from riva_speech.errors import UnsupportedError
from riva_speech.servicemaker import verification
from riva_speech.servicemaker.engines import EngineBuilder, batch_of, lower
from riva_speech.servicemaker.pipelines import layout, writing
from riva_speech.servicemaker.targets import FP32, Target
from riva_speech.servicemaker.usage import Usage
from riva_speech.servicemaker.verification import Recording
from riva_speech.sessions.onnx import OnnxSession
from riva_speech.sessions.opening import open_session

if TYPE_CHECKING:
    from pathlib import Path

    from riva_speech.archive import ArchiveReader
    from riva_speech.asr.pipeline import PipelineConfig
    from riva_speech.sessions import Session

_log = logging.getLogger("riva_speech.riva_deploy")

# The official tool's line, which other tools look for.
_SKIPPED = (
    "%s already exists, skipping deployment.  To force deployment rerun with -f or remove the %s"
)
_MIB = 1 << 20


@dataclass
class _Model:
    """One folder of the repository on its way there.

    ``difference`` is None until it was compared. An engine has not run itself: the graph that it
    was built of has.
    """

    directory: str
    is_new: bool
    tolerance: float
    has_run: bool
    usage: Usage = field(default_factory=Usage)
    difference: float | None = None

    def entry(self) -> dict[str, Any]:
        """Return what the report says."""
        values: dict[str, Any] = {
            "directory": self.directory,
            "deployed": self.is_new,
            "seconds": round(self.usage.seconds, 3),
            "peak_memory_bytes": self.usage.peak_memory_bytes,
        }
        if self.difference is not None:
            values |= {
                "has_run": self.has_run,
                "largest_difference": self.difference,
                "tolerance": self.tolerance,
            }
        return values


class Deployment:
    """The models of one RMIR on their way into a repository."""

    def __init__(
        self, rmir: ArchiveReader, target: Target, repository: Path, folder: Path, *, force: bool
    ) -> None:
        """Prepare to deploy into ``repository``; ``folder`` is one that ``staging`` gave for it.

        Raises:
            UnsupportedError: The RMIR's pipeline is of a kind that cannot be deployed.
            DamagedArchiveError: Its description is malformed.
        """
        if rmir.metadata.get("pipeline") != layout.NAME:
            raise UnsupportedError(
                f"{rmir.path} holds the pipeline {rmir.metadata.get('pipeline')}, which this "
                "version cannot deploy"
            )
        self.pipelines = layout.pipelines_of(rmir)
        self._rmir = rmir
        self._target = target
        self._repository = repository
        self._folder = folder
        self._staging = folder / staging.MODELS
        batch = batch_of(rmir.metadata.get("engine"))
        self._builder = EngineBuilder(target, batch) if target.is_engine else None
        self._tolerance = target.tolerance(str(rmir.metadata.get("weights", FP32)))
        self._source = writing.Source(rmir, folder / "source")
        self._force = force
        self._models: dict[str, _Model] = {}
        self._decoders: dict[str, str] = {}
        (folder / "source").mkdir()

    def run(self) -> list[dict[str, Any]]:
        """Write, verify and move in every model; return a report entry for each pipeline.

        Raises:
            SpeechError: A deployed model does not run, or differs from its source.
        """
        found = staging.seen(self._repository, self._names())
        for pipeline in self.pipelines:
            self._stage(pipeline)
        for pipeline in self.pipelines:
            self._verify(pipeline)
        staging.move_in(self._folder, self._repository, {} if self._force else found)
        return [self._entry(pipeline) for pipeline in self.pipelines]

    def _stage(self, pipeline: PipelineConfig) -> None:
        """Write a pipeline's models into the staging folder; those that stay are linked there."""
        for graph in layout.acoustic_models(pipeline, self._target):
            model = self._begin(graph.directory)
            if model.is_new:
                self._write_acoustic(pipeline, graph, model)
        name = layout.pipeline_directory(pipeline)
        model = self._begin(name)
        if model.is_new:
            self._announce("self", name)
            with model.usage.measured():
                folder = self._staging / name
                writing.write_pipeline(self._rmir, pipeline, folder, self._target)
            self._list_files(name)

    def _begin(self, directory: str) -> _Model:
        deployed = self._repository / directory
        model = _Model(
            directory,
            is_new=self._force or not deployed.exists(),
            tolerance=self._tolerance,
            has_run=self._builder is None,
        )
        self._models[directory] = model
        if not model.is_new:
            _log.warning(_SKIPPED, deployed, deployed)
            (self._staging / directory).symlink_to(deployed.resolve())
        return model

    def _write_acoustic(
        self, pipeline: PipelineConfig, graph: layout.AcousticModel, model: _Model
    ) -> None:
        _log.info("Using %s", self._target.title)
        self._announce(graph.directory, graph.directory)
        folder = self._staging / graph.directory
        with model.usage.measured():
            if self._builder:
                precise = self._runnable(graph)
                writing.write_engine(precise, pipeline, graph, folder, self._builder)
            else:
                writing.write_acoustic_model(self._source, pipeline, graph, folder, self._target)
        self._list_files(graph.directory)

    def _runnable(self, graph: layout.AcousticModel) -> Path:
        """Return what an engine is built of: the source's graph in the target's precision."""
        path = self._source.graph(graph)
        return lower(path, self._target.precision, path.with_suffix(".lowered.onnx"))

    def _announce(self, component: str, directory: str) -> None:
        version = self._repository / directory / repositories.VERSION
        _log.info("Extract_binaries for %s -> %s", component, version)

    def _list_files(self, directory: str) -> None:
        """Say what a model's version folder holds, as the official tool does."""
        staged = self._staging / directory / repositories.VERSION
        deployed = self._repository / directory / repositories.VERSION
        files = {path.name: str(deployed / path.name) for path in sorted(staged.iterdir())}
        _log.info("Printing copied artifacts:")
        _log.info("%s", files)

    def _verify(self, pipeline: PipelineConfig) -> None:
        """Hold a pipeline's models against their source; those that all were there already ran."""
        graphs = layout.acoustic_models(pipeline, self._target)
        folder = layout.pipeline_directory(pipeline)
        models = [self._models[graph.directory] for graph in graphs]
        if not any(model.is_new for model in [*models, self._models[folder]]):
            self._decoders[pipeline.name] = verification.decoder_of(self._staging / folder)
            return
        with self._models[folder].usage.measured():
            sources = {graph.directory: self._source.graph(graph) for graph in graphs}
            recording = Recording(self._staging / folder, sources)
        self._decoders[pipeline.name] = recording.decoder
        for graph, model in zip(graphs, models, strict=True):
            with model.usage.measured():
                self._compare(graph, model, recording)
            _tell(model)

    def _compare(self, graph: layout.AcousticModel, model: _Model, recording: Recording) -> None:
        """Hold one model against its source; of an engine, the graph that it was built of."""
        if self._target.is_engine:
            session: Session = OnnxSession(self._runnable(graph))
        else:
            session = open_session(self._staging / model.directory)
        model.difference = verification.check(recording, model.directory, session, model.tolerance)

    def _names(self) -> list[str]:
        """Return the folders of all models."""
        return [name for pipeline in self.pipelines for name in self._directories(pipeline)]

    def _directories(self, pipeline: PipelineConfig) -> list[str]:
        graphs = layout.acoustic_models(pipeline, self._target)
        names = [graph.directory for graph in graphs]
        return [*names, layout.pipeline_directory(pipeline)]

    def _entry(self, pipeline: PipelineConfig) -> dict[str, Any]:
        directories = self._directories(pipeline)
        return {
            "name": pipeline.name,
            "service": "asr",
            "type": pipeline.type,
            "language_code": pipeline.language_code,
            "rmir": self._rmir.path.name,
            "decoder": self._decoders[pipeline.name],
            "decoder_wanted": pipeline.decoder.type,
            "directories": directories,
            "deployment": [self._models[directory].entry() for directory in directories],
        }


def _tell(model: _Model) -> None:
    _log.info(
        "%s %s agrees with its source within %.1e (%.1e is allowed); it took %.1f s and "
        "%.0f MiB of memory at most",
        "Model" if model.has_run else "The graph of the engine, which has not run,",
        model.directory,
        model.difference,
        model.tolerance,
        model.usage.seconds,
        model.usage.peak_memory_bytes / _MIB,
    )
