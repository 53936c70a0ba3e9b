"""``deploy_all_models``: deploy every RMIR of a folder.

deploy_all_models [-f] RMIR_DIR MODEL_DIR

It takes the options of ``riva-deploy``.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from riva_speech import __version__, program
from riva_speech.errors import ArtifactMissingError
from riva_speech.servicemaker.riva_deploy import add_options, deploy, options_of

if TYPE_CHECKING:
    from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> None:
    """Run the program and exit with its code."""
    chosen = parse(sys.argv[1:] if argv is None else argv)
    program.start_logging()
    sys.exit(program.run(lambda: deploy(options_of(chosen, pipelines_in(chosen.rmirs)))))


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="deploy_all_models",
        description="Deploy every pipeline (.rmir) of a folder, in the order of their names; their"
        " key stands in the environment variable MODEL_DEPLOY_KEY.",
    )
    parser.add_argument("--version", action="version", version=f"deploy_all_models {__version__}")
    add_options(parser)
    parser.add_argument("rmirs", type=Path, metavar="RMIR_DIR", help="folder of pipelines")
    parser.add_argument("repository", type=Path, metavar="MODEL_DIR", help="folder to deploy to")
    return parser.parse_args(argv)


def pipelines_in(folder: Path) -> list[str]:
    """Return the RMIRs of a folder in the order of their names.

    Raises:
        ArtifactMissingError: It holds none.
    """
    sources = [str(path) for path in sorted(folder.glob("*.rmir"))]
    if not sources:
        raise ArtifactMissingError(
            f"{folder} holds no .rmir", hint="build one with riva-build, and put it there"
        )
    return sources


if __name__ == "__main__":
    main()
