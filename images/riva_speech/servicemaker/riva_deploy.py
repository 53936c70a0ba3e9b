"""``riva-deploy``: turn pipelines into a model repository for this machine.

riva-deploy [-f] a.rmir[:key] [b.rmir[:key] ...] REPOSITORY
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from riva_speech import __version__, program
from riva_speech.archive import (
    ArchiveReader,
    key_from_environment,
    keys,
    open_archive,
    split_key,
)
from riva_speech.errors import UnsupportedError, UsageError
from riva_speech.servicemaker import targets
from riva_speech.servicemaker.deployment import Deployment
from riva_speech.servicemaker.official_log import OfficialLog
from riva_speech.servicemaker.targets import Accuracy, Target
from riva_speech.sessions.engine import why_not_here
from riva_speech.sessions.onnx import check_cuda
from riva_speech.staging import staging

if TYPE_CHECKING:
    from collections.abc import Sequence

    from riva_speech.asr.pipeline import PipelineConfig

_log = logging.getLogger("riva_speech.riva_deploy")


@dataclass(frozen=True)
class DeployOptions:
    """What a deployment is asked for; sources are ``file[:key]``."""

    sources: tuple[str, ...]
    repository: Path
    force: bool
    report: Path | None
    target: Target = field(default_factory=Target)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the program and exit with its code."""
    chosen = parse(sys.argv[1:] if argv is None else argv)
    program.start_logging()
    sys.exit(program.run(lambda: deploy(options_of(chosen, chosen.sources))))


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="riva-deploy", description="Deploy pipelines (.rmir) into a Triton model repository."
    )
    parser.add_argument("--version", action="version", version=f"riva-deploy {__version__}")
    add_options(parser)
    parser.add_argument(
        "sources",
        nargs="+",
        metavar="IN.rmir[:KEY]",
        help="pipelines; a key may also stand in the environment variable MODEL_DEPLOY_KEY, and "
        f"{keys.HELP}",
    )
    parser.add_argument("repository", type=Path, metavar="REPOSITORY", help="folder to deploy to")
    return parser.parse_args(argv)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare everything but what is deployed, and where to."""
    parser.add_argument("-f", "--force", action="store_true", help="replace deployed models")
    parser.add_argument(
        "--report",
        type=Path,
        metavar="FILE",
        help="write what was deployed, how far it is from its source, and what it took, as JSON",
    )
    _add_target(parser)
    _add_precision(parser)


def _add_target(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--runtime",
        choices=targets.RUNTIMES,
        default=targets.ONNX_RUNTIME,
        help="what runs the acoustic models (default: %(default)s, on the CPU)",
    )
    parser.add_argument(
        "--triton_backend",
        choices=targets.TRITON_BACKENDS,
        default=targets.NATIVE,
        help="let Triton run acoustic models with its backend for the runtime, or, where it has "
        "none, in its Python backend (default: %(default)s)",
    )
    parser.add_argument(
        "--optimize",
        action="store_true",
        help="store graphs as ONNX Runtime rewrites them: they load faster, and each keeps a copy "
        "of the weights",
    )
    parser.add_argument(
        "--compute_capability",
        default="",
        metavar="X.Y",
        help="GPU that engines are for (default: this machine's)",
    )
    parser.add_argument(
        "--timing_cache", type=Path, metavar="FILE", help="what TensorRT measured, kept for reuse"
    )
    parser.add_argument(
        "--allow_unrun",
        action="store_true",
        help="deploy engines although their GPU is not here, so that only the graphs that they are "
        "built of can be compared",
    )


def _add_precision(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--precision",
        choices=targets.PRECISIONS,
        default=targets.FP32,
        help="fp16 for engines, which spares what loses too much; int8 weights for ONNX Runtime "
        "on the CPU, where the model hears nearly the same with them (default: %(default)s)",
    )
    parser.add_argument(
        "--check_audio",
        type=Path,
        action="append",
        default=[],
        metavar="PATH",
        help="a recording, or a folder of them, that decides whether int8 weights will do; may be "
        "given again (default: noise)",
    )
    parser.add_argument(
        "--check_tolerance",
        type=float,
        default=Accuracy.tolerance,
        metavar="SHARE",
        help="largest share of steps whose best token int8 weights may change "
        "(default: %(default)s)",
    )
    parser.add_argument(
        "--require_precision",
        action="store_true",
        help="fail where int8 weights will not do, rather than deploy in fp32",
    )


def options_of(chosen: argparse.Namespace, sources: Sequence[str]) -> DeployOptions:
    """Return what a command line asks for, of ``sources``.

    Raises:
        UsageError: Its options do not go together.
    """
    target = Target(
        runtime=chosen.runtime,
        triton_backend=chosen.triton_backend,
        precision=chosen.precision,
        compute_capability=chosen.compute_capability,
        timing_cache=chosen.timing_cache,
        allow_unrun=chosen.allow_unrun,
        optimize=chosen.optimize,
        accuracy=Accuracy(
            tuple(chosen.check_audio), chosen.check_tolerance, chosen.require_precision
        ),
    )
    return DeployOptions(tuple(sources), chosen.repository, chosen.force, chosen.report, target)


def deploy(options: DeployOptions) -> None:
    """Deploy each RMIR in turn; what is in the repository is always complete.

    Raises:
        UsageError: The repository's path is no folder, or two pipelines have one name.
        ArchiveError: An RMIR cannot be opened.
        SpeechError: A deployed model does not run, or differs from its source.
        UnsupportedError: What it is deployed for is not here.
    """
    if options.repository.exists() and not options.repository.is_dir():
        raise UsageError(f"{options.repository} is not a folder, and the repository must be one")
    _check(options.target)
    options.repository.mkdir(parents=True, exist_ok=True)
    OfficialLog(options.repository).begin()
    models: list[dict[str, Any]] = []
    for source in options.sources:
        path, key = split_key(source)
        with open_archive(path, kind="rmir", key=key or key_from_environment()) as rmir:
            models += _deploy_rmir(rmir, options, taken={model["name"] for model in models})
    if options.report:
        options.report.write_text(json.dumps(_report(models), indent=2) + "\n")
    _log.info("Deployed %d model(s) to %s", len(models), options.repository)


def _check(target: Target) -> None:
    """Refuse what cannot be done here before anything is written."""
    reason = why_not_here(target.compute_capability) if target.is_engine else ""
    if reason and not target.allow_unrun:
        raise UnsupportedError(
            f"a model for {target.runtime} cannot be run once it is built, and so not be verified: "
            f"{reason}",
            hint="add --allow_unrun to have it all the same",
        )
    if target.on_gpu and not target.is_engine:
        check_cuda()


def _deploy_rmir(
    rmir: ArchiveReader, options: DeployOptions, taken: set[str]
) -> list[dict[str, Any]]:
    """Deploy one RMIR; return a report entry for each pipeline."""
    repository = options.repository
    with staging(repository) as folder:
        deployment = Deployment(rmir, options.target, repository, folder, force=options.force)
        _refuse_twins(rmir, deployment.pipelines, taken)
        return deployment.run()


def _refuse_twins(rmir: ArchiveReader, pipelines: list[PipelineConfig], taken: set[str]) -> None:
    """Let no RMIR take the place of another one's model in the same deployment."""
    for pipeline in pipelines:
        if pipeline.name in taken:
            raise UsageError(
                f"{rmir.path} deploys a model named {pipeline.name}, and so does another RMIR",
                hint="build one of them with another --name",
            )


def _report(models: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the report that the host side reads."""
    import onnxruntime  # noqa: PLC0415 - takes long to import

    engine = {"riva_speech": __version__, "onnxruntime": onnxruntime.__version__}
    return {"schema_version": 1, "engine": engine, "models": models}


if __name__ == "__main__":
    main()
