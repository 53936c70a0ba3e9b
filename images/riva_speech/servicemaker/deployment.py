"""Deploying one RMIR: written beside the repository's models, run, then moved in."""

from __future__ import annotations

import logging
import shutil
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from riva_speech import staging
from riva_speech.errors import UnsupportedError
from riva_speech.servicemaker import batches, rounding, verification
from riva_speech.servicemaker.engines import EngineBuilder, lower
from riva_speech.servicemaker.official_log import OfficialLog
from riva_speech.servicemaker.pipelines import layout, writing
from riva_speech.servicemaker.staged import StagedModel
from riva_speech.servicemaker.targets import FP16, FP32, INT8, Target
from riva_speech.servicemaker.verification import Recording
from riva_speech.sessions.engine import why_not_here
from riva_speech.sessions.onnx import OnnxSession
from riva_speech.sessions.opening import open_session

if TYPE_CHECKING:
    from pathlib import Path

    from riva_speech.archive import ArchiveReader
    from riva_speech.asr.pipeline import PipelineConfig
    from riva_speech.servicemaker.rounding import Judgement
    from riva_speech.sessions import Session

_log = logging.getLogger("riva_speech.riva_deploy")

_NO_INT8 = "is a transducer, for which this version has no int8 weights"


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
        self._target = target = allowed(target, rmir)
        self._repository = repository
        self._say = OfficialLog(repository)
        self._folder = folder
        self._staging = folder / staging.MODELS
        batch = batches.of_engine(layout.options_of(rmir))
        self._builder = EngineBuilder(target, batch) if target.is_engine else None
        self._runs = not (self._builder and why_not_here(target.compute_capability))
        self._weights = str(rmir.metadata.get("weights", FP32))
        self._source = writing.Source(rmir, self._new_folder("source"), for_gpu=target.on_gpu)
        self._force = force
        self._models: dict[str, StagedModel] = {}
        self._decoders: dict[str, str] = {}
        self._judgements: list[Judgement] = []

    def _new_folder(self, name: str) -> Path:
        folder = self._folder / name
        folder.mkdir()
        return folder

    def run(self) -> list[dict[str, Any]]:
        """Write, verify and move in every model; return a report entry for each pipeline.

        Raises:
            SpeechError: A deployed model does not run, or differs from its source.
        """
        found = staging.seen(self._repository, self._names())
        anything_new = self._force or None in found.values()
        if self._target.precision == INT8 and anything_new:
            self._stage_rounded()
        else:
            self._stage_all()
        for pipeline in self.pipelines:
            self._verify(pipeline)
        staging.move_in(self._folder, self._repository, {} if self._force else found)
        return [self._entry(pipeline) for pipeline in self.pipelines]

    def _stage_rounded(self) -> None:
        """Stage everything with int8 weights, or as it is where those will not do."""
        if self._weights == INT8:
            _log.info("%s has int8 weights already", self._rmir.path.name)
            self._stage_all()
            return
        plain, weights = self._source, self._weights
        reason = _NO_INT8 if self._has_transducer() else self._round()
        if reason:
            rounding.refuse_or_tell(f"{self._rmir.path.name} {reason}", self._target.accuracy)
            self._source, self._weights = plain, weights
            self._stage_all()

    def _has_transducer(self) -> bool:
        return any(pipeline.acoustic.transducer for pipeline in self.pipelines)

    def _round(self) -> str:
        """Stage everything with int8 weights; return why these will not do, if so."""
        plain = self._source
        graphs = [graph for one in self.pipelines for graph in self._graphs(one)]
        self._source = rounding.rounded(plain, graphs, self._new_folder("rounded"))
        self._weights = INT8
        self._stage_all()
        self._judgements = [self._judge(pipeline, plain) for pipeline in self.pipelines]
        return rounding.worst(self._judgements)

    def _judge(self, pipeline: PipelineConfig, plain: writing.Source) -> Judgement:
        folder = self._staging / layout.pipeline_directory(pipeline)
        graphs = self._graphs(pipeline)
        with self._models[folder.name].usage.measured():
            return rounding.judge(
                folder,
                {graph.directory: plain.graph(graph) for graph in graphs},
                {graph.directory: self._source.graph(graph) for graph in graphs},
                self._target.accuracy,
            )

    def _stage_all(self) -> None:
        """Write all models into the staging folder, in place of what may be there."""
        shutil.rmtree(self._staging)
        self._staging.mkdir()
        for pipeline in self.pipelines:
            self._stage(pipeline)

    def _graphs(self, pipeline: PipelineConfig) -> list[layout.AcousticModel]:
        return layout.acoustic_models(pipeline, self._target)

    def _stage(self, pipeline: PipelineConfig) -> None:
        """Write a pipeline's models into the staging folder; those that stay are linked there."""
        for graph in self._graphs(pipeline):
            model = self._begin(graph.directory)
            if model.is_new:
                self._write_acoustic(pipeline, graph, model)
        name = layout.pipeline_directory(pipeline)
        model = self._begin(name)
        if model.is_new:
            self._say.extract("self", name)
            with model.usage.measured():
                folder = self._staging / name
                writing.write_pipeline(self._rmir, pipeline, folder, self._target)
            self._say.copied(self._staging / name)
            self._say.steps(self._directories(pipeline))

    def _begin(self, directory: str) -> StagedModel:
        deployed = self._repository / directory
        model = StagedModel(
            directory,
            is_new=self._force or not deployed.exists(),
            tolerance=self._target.tolerance(self._weights),
            has_run=self._runs,
        )
        self._models[directory] = model
        if not model.is_new:
            self._say.skip(directory)
            (self._staging / directory).symlink_to(deployed.resolve())
        return model

    def _write_acoustic(
        self, pipeline: PipelineConfig, graph: layout.AcousticModel, model: StagedModel
    ) -> None:
        _log.info("Using %s", self._target.title)
        obj_cls = str(self._rmir.metadata.get("obj_cls", "unknown"))
        self._say.extract(graph.directory, graph.directory)
        self._say.graph(graph.directory, obj_cls, graph.graph)
        folder = self._staging / graph.directory
        with model.usage.measured():
            if self._builder:
                self._write_engine(self._builder, pipeline, graph)
            else:
                writing.write_acoustic_model(self._source, pipeline, graph, folder, self._target)
        if self._builder:
            self._say.engine(graph.directory)
        self._say.copied(folder)

    def _write_engine(
        self, builder: EngineBuilder, pipeline: PipelineConfig, graph: layout.AcousticModel
    ) -> None:
        config = writing.acoustic_config(self._source, pipeline, graph, self._target, builder.batch)
        folder = self._staging / graph.directory
        writing.write_engine(self._runnable(graph), config, pipeline, graph, folder, builder)

    def _runnable(self, graph: layout.AcousticModel) -> Path:
        """Return what an engine is built of: the source's graph in the target's precision."""
        path = self._source.graph(graph)
        return lower(path, self._target.precision, path.with_suffix(".lowered.onnx"))

    def _verify(self, pipeline: PipelineConfig) -> None:
        """Hold a pipeline's models against their source; those that all were there already ran."""
        graphs = self._graphs(pipeline)
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
            model.tell()

    def _compare(
        self, graph: layout.AcousticModel, model: StagedModel, recording: Recording
    ) -> None:
        """Hold one model against its source; where it cannot run here, what it was built of."""
        if self._runs:
            session: Session = open_session(self._staging / model.directory)
        else:
            session = OnnxSession(self._runnable(graph))
        model.difference = verification.check(recording, model.directory, session, model.tolerance)

    def _names(self) -> list[str]:
        """Return the folders of all models."""
        return [name for pipeline in self.pipelines for name in self._directories(pipeline)]

    def _directories(self, pipeline: PipelineConfig) -> list[str]:
        graphs = self._graphs(pipeline)
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
            "weights": self._weights,
            "deployment": [self._models[directory].entry() for directory in directories],
            **self._judged(pipeline),
        }

    def _judged(self, pipeline: PipelineConfig) -> dict[str, Any]:
        """Return what the report says of int8 weights, where they were tried."""
        entries = {one.pipeline: one.entry() for one in self._judgements}
        return {"int8": entries[pipeline.name]} if pipeline.name in entries else {}


def allowed(target: Target, rmir: ArchiveReader) -> Target:
    """Return a target in single precision where the pipeline was built with --nn.use_trt_fp32."""
    if target.precision != FP16 or not layout.options_of(rmir).get("nn.use_trt_fp32"):
        return target
    _log.warning(
        "%s was built with --nn.use_trt_fp32: its engines keep single precision", rmir.path.name
    )
    return replace(target, precision=FP32)
