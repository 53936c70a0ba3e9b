"""``riva-deploy``: turn pipelines into a model repository for this machine.

riva-deploy [-f] a.rmir[:key] [b.rmir[:key] ...] REPOSITORY
"""

from __future__ import annotations

import argparse
import json
import logging
import shutil
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from riva_speech import __version__, program
from riva_speech.archive import ArchiveReader, key_from_environment, open_archive, split_key
from riva_speech.asr.loading import load_recognizer
from riva_speech.errors import SpeechError, UnsupportedError, UsageError
from riva_speech.servicemaker.pipelines import speech_recognition as recognition

if TYPE_CHECKING:
    from collections.abc import Sequence

    from riva_speech.asr.pipeline import PipelineConfig

_log = logging.getLogger("riva_speech.riva_deploy")

# The official tool's line, which other tools look for.
_SKIPPED = (
    "%s already exists, skipping deployment.  To force deployment rerun with -f or remove the %s"
)


@dataclass(frozen=True)
class DeployOptions:
    """What a deployment is asked for; sources are ``file[:key]``."""

    sources: tuple[str, ...]
    repository: Path
    force: bool
    report: Path | None


def main(argv: Sequence[str] | None = None) -> None:
    """Run the program and exit with its code."""
    parser = argparse.ArgumentParser(
        prog="riva-deploy", description="Deploy pipelines (.rmir) into a Triton model repository."
    )
    parser.add_argument("--version", action="version", version=f"riva-deploy {__version__}")
    parser.add_argument("-f", "--force", action="store_true", help="replace deployed models")
    parser.add_argument(
        "--report", type=Path, metavar="FILE", help="write what was deployed as JSON"
    )
    parser.add_argument(
        "sources",
        nargs="+",
        metavar="IN.rmir[:KEY]",
        help="pipelines; a key may also stand in the environment variable MODEL_DEPLOY_KEY",
    )
    parser.add_argument("repository", type=Path, metavar="REPOSITORY", help="folder to deploy to")
    chosen = parser.parse_args(sys.argv[1:] if argv is None else argv)
    program.start_logging()
    options = DeployOptions(tuple(chosen.sources), chosen.repository, chosen.force, chosen.report)
    sys.exit(program.run(lambda: deploy(options)))


def deploy(options: DeployOptions) -> None:
    """Deploy each RMIR in turn; what is in the repository is always complete.

    Raises:
        UsageError: The repository's path is no folder, or two pipelines have one name.
        ArchiveError: An RMIR cannot be opened.
        SpeechError: A deployed model does not run.
    """
    if options.repository.exists() and not options.repository.is_dir():
        raise UsageError(f"{options.repository} is not a folder, and the repository must be one")
    options.repository.mkdir(parents=True, exist_ok=True)
    _log.info("Writing Riva model repository to '%s'...", options.repository)
    models: list[dict[str, Any]] = []
    for source in options.sources:
        path, key = split_key(source)
        with open_archive(path, kind="rmir", key=key or key_from_environment()) as rmir:
            taken = {model["name"] for model in models}
            models += deploy_rmir(rmir, options.repository, force=options.force, taken=taken)
    if options.report:
        options.report.write_text(json.dumps(_report(models), indent=2) + "\n")
    _log.info("Deployed %d model(s) to %s", len(models), options.repository)


def deploy_rmir(
    rmir: ArchiveReader, repository: Path, *, force: bool, taken: set[str]
) -> list[dict[str, Any]]:
    """Deploy one RMIR; return a report entry for each pipeline.

    Models are written and run beside the repository's own, then moved in. A model that is there
    already stays, unless ``force`` is set.
    """
    if rmir.metadata.get("pipeline") != recognition.NAME:
        raise UnsupportedError(
            f"{rmir.path} holds the pipeline {rmir.metadata.get('pipeline')}, which this version "
            "cannot deploy"
        )
    pipelines = recognition.pipelines_of(rmir)
    for pipeline in pipelines:
        if pipeline.name in taken:
            raise UsageError(
                f"{rmir.path} deploys a model named {pipeline.name}, and so does another RMIR",
                hint="build one of them with another --name",
            )
    with tempfile.TemporaryDirectory(dir=repository, prefix=".deploying-") as folder:
        staging = Path(folder)
        for pipeline in pipelines:
            _stage(rmir, pipeline, repository, staging, force=force)
        decoders = {}
        for pipeline in pipelines:
            decoders[pipeline.name] = _verify(pipeline, staging)
        for path in sorted(staging.iterdir()):
            _move_in(path, repository, staging)
    return [_entry(one, rmir.path.name, decoders[one.name]) for one in pipelines]


def _stage(
    rmir: ArchiveReader, pipeline: PipelineConfig, repository: Path, staging: Path, *, force: bool
) -> None:
    """Write a pipeline's models into the staging folder; those that stay are linked there."""
    name = recognition.pipeline_directory(pipeline)
    if _is_new(name, repository, staging, force=force):
        recognition.write_pipeline(rmir, pipeline, staging / name)
    for model in recognition.acoustic_models(pipeline):
        if _is_new(model.directory, repository, staging, force=force):
            target = staging / model.directory
            recognition.write_acoustic_model(rmir, pipeline, model, target)


def _is_new(name: str, repository: Path, staging: Path, *, force: bool) -> bool:
    deployed = repository / name
    if force or not deployed.exists():
        _log.info("Extract_binaries for %s -> %s/1", name, deployed)
        return True
    _log.warning(_SKIPPED, deployed, deployed)
    (staging / name).symlink_to(deployed.resolve())
    return False


def _verify(pipeline: PipelineConfig, staging: Path) -> str:
    """Let a staged pipeline recognise noise: it must load, run and give finite numbers.

    Returns the decoder it used, which is the pipeline's fallback where a library is missing.
    """
    _log.info("Using onnx runtime")
    recognizer = load_recognizer(staging / recognition.pipeline_directory(pipeline))
    noise = np.random.default_rng(0).normal(0, 0.01, pipeline.acoustic.features.sample_rate)
    try:
        result = recognizer.recognize(noise.astype(np.float32))
    except Exception as error:
        raise SpeechError(
            f"the deployed model {pipeline.name} does not run: {error}",
            hint="convert and build the checkpoint again",
        ) from error
    if not np.isfinite(result.confidence):
        raise SpeechError(f"the deployed model {pipeline.name} gives values that are no numbers")
    return recognizer.decoding.name


def _move_in(staged: Path, repository: Path, staging: Path) -> None:
    """Put a staged model into the repository, in place of the one that may be there."""
    if staged.is_symlink():
        return
    target = repository / staged.name
    if target.exists():
        target.rename(staging / f"old-{staged.name}")
    staged.rename(target)
    shutil.rmtree(staging / f"old-{staged.name}", ignore_errors=True)


def _entry(pipeline: PipelineConfig, rmir: str, decoder: str) -> dict[str, Any]:
    acoustic = [model.directory for model in recognition.acoustic_models(pipeline)]
    return {
        "name": pipeline.name,
        "service": "asr",
        "type": pipeline.type,
        "language_code": pipeline.language_code,
        "rmir": rmir,
        "decoder": decoder,
        "decoder_wanted": pipeline.decoder.type,
        "directories": [*acoustic, recognition.pipeline_directory(pipeline)],
    }


def _report(models: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the report that the host side reads."""
    import onnxruntime  # noqa: PLC0415 - takes long to import

    engine = {"riva_speech": __version__, "onnxruntime": onnxruntime.__version__}
    return {"schema_version": 1, "engine": engine, "models": models}


if __name__ == "__main__":
    main()
