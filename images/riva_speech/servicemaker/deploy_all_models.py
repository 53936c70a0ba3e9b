"""``deploy_all_models``: deploy every RMIR of a folder.

deploy_all_models RMIR_DIR MODEL_DIR
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from riva_speech import __version__, program
from riva_speech.errors import ArtifactMissingError
from riva_speech.servicemaker.riva_deploy import DeployOptions, deploy

if TYPE_CHECKING:
    from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> None:
    """Run the program and exit with its code."""
    parser = argparse.ArgumentParser(
        prog="deploy_all_models",
        description="Deploy every pipeline (.rmir) of a folder; their key stands in"
        " the environment variable MODEL_DEPLOY_KEY.",
    )
    parser.add_argument("--version", action="version", version=f"deploy_all_models {__version__}")
    parser.add_argument("-f", "--force", action="store_true", help="replace deployed models")
    parser.add_argument("rmirs", type=Path, metavar="RMIR_DIR", help="folder of pipelines")
    parser.add_argument("repository", type=Path, metavar="MODEL_DIR", help="folder to deploy to")
    chosen = parser.parse_args(sys.argv[1:] if argv is None else argv)
    program.start_logging()
    sys.exit(program.run(lambda: deploy_all(chosen.rmirs, chosen.repository, force=chosen.force)))


def deploy_all(rmirs: Path, repository: Path, *, force: bool = False) -> None:
    """Deploy the RMIRs of a folder in the order of their names.

    Raises:
        ArtifactMissingError: The folder holds none.
        SpeechError: One cannot be deployed.
    """
    sources = tuple(str(path) for path in sorted(rmirs.glob("*.rmir")))
    if not sources:
        raise ArtifactMissingError(
            f"{rmirs} holds no .rmir", hint="build one with riva-build, and put it there"
        )
    deploy(DeployOptions(sources, repository, force, report=None))


if __name__ == "__main__":
    main()
