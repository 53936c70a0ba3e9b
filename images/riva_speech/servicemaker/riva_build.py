"""``riva-build``: combine models and options into a deployable pipeline.

riva-build speech_recognition out.rmir[:key] in.riva[:key] --name=my-asr --language_code=en-US
"""

from __future__ import annotations

import argparse
import logging
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from riva_speech import __version__, program
from riva_speech.archive import open_archive, refuse_overwrite, split_key, write_archive
from riva_speech.errors import UsageError
from riva_speech.servicemaker.pipelines import speech_recognition

if TYPE_CHECKING:
    from collections.abc import Sequence

_log = logging.getLogger("riva_speech.riva_build")

# Pipelines of the official tool that this one does not have yet.
_MISSING = (
    "speech_synthesis",
    "punctuation",
    "qa",
    "token_classification",
    "intent_slot",
    "text_classification",
    "translation",
    "megatron_translation",
)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the program and exit with its code."""
    chosen = parse(sys.argv[1:] if argv is None else argv)
    program.start_logging(logging.DEBUG if chosen.verbose else logging.INFO)
    sys.exit(program.run(lambda: build(chosen)))


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="riva-build",
        description="Combine .riva archives and options into a deployable pipeline (.rmir).",
        epilog="Not in this version: " + ", ".join(_MISSING) + ".",
    )
    parser.add_argument("--version", action="version", version=f"riva-build {__version__}")
    pipelines = parser.add_subparsers(dest="pipeline", required=True, metavar="PIPELINE")
    recognition = pipelines.add_parser(
        speech_recognition.NAME,
        aliases=[speech_recognition.NAME.replace("_", "-")],
        help="speech to text",
        description="Build a speech recognition pipeline.",
    )
    recognition.add_argument("rmir", metavar="OUT.rmir[:KEY]", help="what to write")
    recognition.add_argument("sources", metavar="IN.riva[:KEY]", nargs="+", help="the models")
    recognition.add_argument("-f", "--force", action="store_true", help="replace an existing file")
    recognition.add_argument("-v", "--verbose", action="store_true", help="say more")
    speech_recognition.add_arguments(recognition)
    return parser.parse_args(argv)


def build(chosen: argparse.Namespace) -> None:
    """Build an RMIR.

    Raises:
        UsageError: The output exists and ``force`` is not set, or an option does not fit.
        ArchiveError: A source cannot be opened.
    """
    target, key = split_key(chosen.rmir)
    if target.suffix != ".rmir":
        raise UsageError(f"the output {target} must end in .rmir")
    refuse_overwrite(target, force=chosen.force)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="riva-build-")))
        sources = [
            stack.enter_context(open_archive(path, kind="riva", key=source_key))
            for path, source_key in map(split_key, chosen.sources)
        ]
        metadata, artifacts = speech_recognition.build(sources, chosen, folder)
        for pipeline in metadata["pipelines"]:
            _log.info("Packing %s (%s)", pipeline["name"], pipeline["type"])
        _log.info("Saving to %s", target)
        write_archive(
            target, kind="rmir", metadata=metadata, sources=artifacts, key=key, force=chosen.force
        )


if __name__ == "__main__":
    main()
