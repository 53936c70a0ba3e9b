"""``riva-build``: combine models and options into a deployable pipeline.

riva-build speech_recognition out.rmir[:key] in.riva[:key] --name=my-asr --language_code=en-US

The grammar of newer releases is translated into this one, see ``hydra``.
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
from riva_speech.archive import (
    key_from_environment,
    keys,
    open_archive,
    refuse_overwrite,
    split_key,
    write_archive,
)
from riva_speech.errors import UsageError
from riva_speech.servicemaker import conversion, hydra, nemo2riva
from riva_speech.servicemaker.pipelines import layout, missing, speech_recognition

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_log = logging.getLogger("riva_speech.riva_build")


def main(argv: Sequence[str] | None = None) -> None:
    """Run the program and exit with its code."""
    program.start_logging()
    words = sys.argv[1:] if argv is None else argv
    sys.exit(program.run(lambda: build(parse(words))))


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Read the command line, in either grammar.

    Raises:
        UsageError: A part of the newer grammar is missing or not known.
        UnsupportedError: The pipeline is not in this version.
    """
    named = next((word for word in argv if not word.startswith("-")), "").replace("-", "_")
    missing.refuse(named)
    command = hydra.translate(argv) if hydra.is_hydra(argv) else hydra.Command(list(argv))
    chosen = _parser().parse_args(command.argv)
    chosen.conversions = command.conversions
    if chosen.verbose:
        logging.getLogger("riva_speech").setLevel(logging.DEBUG)
    return chosen


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="riva-build",
        description="Combine .riva archives and options into a deployable pipeline (.rmir).",
        epilog="Not in this version: "
        + ", ".join(missing.NAMES)
        + ". The newer grammar is understood "
        "too: --config-path=pkg://servicemaker.configs.asr --config-name=streaming|offline "
        "output_path=OUT.rmir 'source_path=[IN.riva]' key=value force=true.",
    )
    parser.add_argument("--version", action="version", version=f"riva-build {__version__}")
    pipelines = parser.add_subparsers(dest="pipeline", required=True, metavar="PIPELINE")
    recognition = pipelines.add_parser(
        layout.NAME,
        aliases=[layout.NAME.replace("_", "-")],
        help="speech to text",
        description="Build a speech recognition pipeline.",
        allow_abbrev=False,
    )
    recognition.add_argument("rmir", metavar="OUT.rmir[:KEY]", help=f"what to write; {keys.HELP}")
    recognition.add_argument(
        "sources",
        metavar="IN.riva[:KEY]",
        nargs="+",
        help="the models; a key may also stand in the environment variable MODEL_DEPLOY_KEY. "
        "A .nemo is converted on the way",
    )
    recognition.add_argument("-f", "--force", action="store_true", help="replace an existing file")
    recognition.add_argument("-v", "--verbose", action="store_true", help="say more")
    speech_recognition.add_arguments(recognition)
    return parser


def build(chosen: argparse.Namespace) -> None:
    """Build an RMIR.

    Raises:
        UsageError: The output exists and ``force`` is not set, or an option does not fit.
        ArchiveError: A source cannot be opened.
    """
    target, target_key = split_key(chosen.rmir)
    if target.suffix != ".rmir":
        raise UsageError(f"the output {target} must end in .rmir")
    refuse_overwrite(target, force=chosen.force)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="riva-build-")))
        sources = [
            stack.enter_context(open_archive(path, kind="riva", key=key or key_from_environment()))
            for path, key in _converted(chosen, folder)
        ]
        metadata, artifacts = speech_recognition.build(sources, chosen, folder)
        for pipeline in metadata["pipelines"]:
            _log.info("Packing %s (%s)", pipeline["name"], pipeline["type"])
        _log.info("Saving to %s", target)
        write_archive(
            target,
            kind="rmir",
            metadata=metadata,
            sources=artifacts,
            key=target_key,
            force=chosen.force,
        )


def _converted(chosen: argparse.Namespace, folder: Path) -> Iterator[tuple[Path, str | None]]:
    """Yield each source with its key; checkpoints are converted into ``folder`` first."""
    for number, source in enumerate(chosen.sources):
        path, key = split_key(source)
        if path.suffix != ".nemo":
            yield path, key
            continue
        words = [str(path), "--out", str(folder / f"source-{number}.riva")]
        words += hydra.options_of_nemo2riva(chosen.conversions.get(source, {}))
        options = nemo2riva.options_of(nemo2riva.parse(words))
        conversion.convert(options)
        yield options.out, None


if __name__ == "__main__":
    main()
