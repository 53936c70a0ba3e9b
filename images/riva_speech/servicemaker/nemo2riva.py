"""``nemo2riva``: convert a NeMo checkpoint.

nemo2riva model.nemo --out model.riva [--key KEY]

The architecture is read from the checkpoint, and the command that spells out what follows from it
is printed. Options of NVIDIA's tool are there; what has no meaning here is refused by name.
"""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from riva_speech import __version__, program
from riva_speech.archive import keys, split_key
from riva_speech.errors import UsageError
from riva_speech.servicemaker.conversion import HEADS, ConvertOptions, convert
from riva_speech.servicemaker.families.context import UNLIMITED

if TYPE_CHECKING:
    from collections.abc import Sequence

_DEFAULT_OPSET = 17


def main(argv: Sequence[str] | None = None) -> None:
    """Run the program and exit with its code."""
    chosen = parse(sys.argv[1:] if argv is None else argv)
    program.start_logging(logging.DEBUG if chosen.verbose else logging.INFO)
    sys.exit(program.run(lambda: convert(options_of(chosen))))


def options_of(chosen: argparse.Namespace) -> ConvertOptions:
    """Return what a command line asks for.

    Raises:
        UsageError: Two different keys are given.
    """
    out, key = split_key(chosen.out) if chosen.out else (chosen.source, None)
    given = keys.given(chosen.key) if chosen.key else None
    if key and given and key != given:
        raise UsageError("--out and --key name different keys", hint="give one of them")
    return ConvertOptions(
        source=chosen.source,
        out=out.with_suffix(".riva"),
        key=key or given,
        force=chosen.force,
        device=chosen.device,
        onnx_opset=chosen.onnx_opset,
        decoder=_decoder(chosen),
        max_dim=chosen.max_dim,
        format=chosen.format,
        runtime_check=chosen.runtime_check,
        validate=chosen.validate,
        offline_context=tuple(chosen.offline_context) if chosen.offline_context else None,
    )


def _decoder(chosen: argparse.Namespace) -> str | None:
    """Return the head asked for, which NeMo's own ``--export-config`` can name too.

    Raises:
        UsageError: It is named in two ways that differ.
    """
    named: str | None = chosen.export_config.get("decoder_type")
    if named and chosen.decoder and named != chosen.decoder:
        raise UsageError("--decoder and --export-config decoder_type name different heads")
    decoder: str | None = chosen.decoder or named
    return decoder


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="nemo2riva", description="Convert a NeMo checkpoint (.nemo) to a .riva archive."
    )
    parser.add_argument("--version", action="version", version=f"nemo2riva {__version__}")
    parser.add_argument("source", type=Path, help="the .nemo file")
    parser.add_argument(
        "--out",
        metavar="OUT.riva[:KEY]",
        help="where to write; always ends in .riva (default: beside the source)",
    )
    parser.add_argument(
        "--key",
        help="encrypt with this key, or with that in the file of this name; "
        f"{keys.HELP} (default: no encryption)",
    )
    parser.add_argument("-f", "--force", action="store_true", help="replace an existing file")
    parser.add_argument("--verbose", action="store_true", help="say more")
    parser.add_argument(
        "--validate", action="store_true", help="read the archive back and check it"
    )
    parser.add_argument(
        "--runtime-check",
        action="store_true",
        help="run the graphs on noise and compare them with NeMo",
    )
    _add_export_arguments(parser)
    _add_needless_arguments(parser)
    return parser.parse_args(argv)


def _add_export_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options that say how to export; most follow from the checkpoint."""
    parser.add_argument(
        "--decoder", choices=HEADS, help="the head of a hybrid model (default: ctc)"
    )
    parser.add_argument(
        "--format",
        choices=["ONNX", "NEMO", "TS", "CKPT"],
        default="ONNX",
        type=str.upper,
        help="ONNX for every model; NEMO, which NVIDIA's tool wants for RNN-T and TDT, gives the "
        "same graphs; TS and CKPT are refused (default: %(default)s)",
    )
    parser.add_argument(
        "--onnx-opset", type=int, default=_DEFAULT_OPSET, help="ONNX opset (default: %(default)s)"
    )
    parser.add_argument(
        "--device", default="cpu", help="where to run the export: cpu or cuda (default: cpu)"
    )
    parser.add_argument(
        "--max-dim",
        type=_positive,
        metavar="FRAMES",
        help="longest input (default: what the checkpoint says; for convolutions 100000)",
    )
    parser.add_argument(
        "--offline-context",
        type=_context,
        nargs=2,
        metavar=("LEFT", "RIGHT"),
        help="how far the graph for whole utterances of a cache-aware model looks, in encoder "
        "steps; -1 is all that there is, and LEFT a multiple of RIGHT + 1. Streams keep what they "
        "were trained with (default: the checkpoint's first att_context_size)",
    )
    parser.add_argument(
        "--export-config",
        action=_ExportConfig,
        nargs="+",
        default={},
        metavar="KEY=VALUE",
        help="NeMo's export settings: decoder_type=ctc|rnnt, cache_support=True",
    )
    parser.add_argument(
        "--autocast",
        type=_autocast,
        nargs="?",
        const=True,
        help="False only: graphs are exported in full precision, and made smaller by riva-deploy",
    )


def _add_needless_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what NVIDIA's tool has and this one does not need, or refuses."""
    parser.add_argument(
        "--max-batch", type=_positive, help="accepted and not needed: graphs take any batch"
    )
    parser.add_argument(
        "--cache-support",
        action="store_true",
        help="accepted and not needed: cache-aware models are always exported with their caches",
    )
    for option, reason in _REFUSED.items():
        parser.add_argument(option, action=_Refused, nargs="?", help=f"refused: {reason}")


_REFUSED = {
    "--schema": "schemas describe NVIDIA's archives, and these have a manifest of their own",
    "--export-subnet": "a pipeline needs all graphs of a model, so all are exported",
}


class _Refused(argparse.Action):
    """An option of NVIDIA's tool that has no meaning here."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: object,
        option_string: str | None = None,
    ) -> None:
        del namespace, values
        assert option_string is not None  # it is no positional
        parser.error(f"{option_string} is not supported: {_REFUSED[option_string]}")


class _ExportConfig(argparse.Action):
    """Settings that NeMo's exporter would take."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: object,
        option_string: str | None = None,
    ) -> None:
        del option_string
        assert isinstance(values, list)  # nargs="+"
        settings = dict(getattr(namespace, self.dest))
        for value in values:
            key, _, text = str(value).partition("=")
            if (key, text) not in _EXPORT_SETTINGS:
                known = ", ".join("=".join(pair) for pair in _EXPORT_SETTINGS)
                parser.error(f"--export-config {value} is not supported; known are {known}")
            settings[key] = text
        setattr(namespace, self.dest, settings)


_EXPORT_SETTINGS = (("decoder_type", "ctc"), ("decoder_type", "rnnt"), ("cache_support", "True"))


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a positive number")
    return number


def _context(text: str) -> int:
    number = int(text)
    if number < UNLIMITED:
        raise argparse.ArgumentTypeError(f"{text} is no number of steps")
    return number


def _autocast(text: str | bool) -> bool:  # noqa: FBT001 - argparse gives either
    if str(text).lower() != "false":
        raise argparse.ArgumentTypeError(
            "autocast is not supported: graphs are exported in full precision, and riva-deploy "
            "chooses a smaller one where the result stays the same"
        )
    return False


if __name__ == "__main__":
    main()
