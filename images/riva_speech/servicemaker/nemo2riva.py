"""``nemo2riva``: convert a NeMo checkpoint.

nemo2riva model.nemo --out model.riva [--key KEY]
"""

from __future__ import annotations

import argparse
import logging
import sys
import tempfile
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from riva_speech import __version__, program
from riva_speech.archive import refuse_overwrite, split_key, write_archive
from riva_speech.errors import UnsupportedError, UsageError
from riva_speech.servicemaker import checkpoint

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import ModuleType

_log = logging.getLogger("riva_speech.nemo2riva")
_MODELS = "nemo.collections.asr.models"
_DEFAULT_OPSET = 17


@dataclass(frozen=True)
class ConvertOptions:
    """What a conversion is asked for."""

    source: Path
    out: Path
    key: str | None
    force: bool
    device: str
    onnx_opset: int


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
    given = _read_key(chosen.key)
    if key and given and key != given:
        raise UsageError("--out and --key name different keys", hint="give one of them")
    return ConvertOptions(
        source=chosen.source,
        out=out.with_suffix(".riva"),
        key=key or given,
        force=chosen.force,
        device=chosen.device,
        onnx_opset=chosen.onnx_opset,
    )


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
        "--key", help="encrypt with this key, or with that in the file of this name"
    )
    parser.add_argument("-f", "--force", action="store_true", help="replace an existing file")
    parser.add_argument(
        "--format", choices=["ONNX"], default="ONNX", type=str.upper, help="what to export to"
    )
    parser.add_argument(
        "--onnx-opset", type=int, default=_DEFAULT_OPSET, help="ONNX opset (default: %(default)s)"
    )
    parser.add_argument(
        "--device", default="cpu", help="where to run the export: cpu or cuda (default: cpu)"
    )
    parser.add_argument("--verbose", action="store_true", help="say more")
    return parser.parse_args(argv)


def _read_key(given: str | None) -> str | None:
    """Return the key itself; what is given may be the name of a file that holds it."""
    if given and Path(given).is_file():
        return Path(given).read_text(encoding="utf-8").strip()
    return given or None


def convert(options: ConvertOptions) -> None:
    """Convert a checkpoint.

    Raises:
        UsageError: The output exists and ``force`` is not set.
        UnsupportedError: NeMo is not installed, or the architecture is not supported.
        SpeechError: The checkpoint is missing, damaged or hostile.
    """
    refuse_overwrite(options.out, force=options.force)
    with tempfile.TemporaryDirectory(prefix="nemo2riva-") as folder:
        unpacked, exported = Path(folder) / "checkpoint", Path(folder) / "export"
        unpacked.mkdir()
        exported.mkdir()
        source = checkpoint.unpack(options.source, unpacked)
        _log.info("%s is a %s", options.source, source.class_name)
        family = _family(source.class_name)
        result = family.export(
            source, exported, device=options.device, onnx_opset=options.onnx_opset
        )
        metadata = {
            "description": "Exported NeMo model",
            "obj_cls": f"{_MODELS}.{source.class_name}",
            "nemo_version": str(source.config.get("nemo_version", "unknown")),
            "runtime": "ONNX",
            "acoustic": result.acoustic.to_mapping(),
        }
        _log.info("Saving to %s", options.out)
        write_archive(
            options.out,
            kind="riva",
            metadata=metadata,
            sources=result.files,
            key=options.key,
            force=options.force,
        )
    _log.info("Model saved to %s", options.out)


def _family(class_name: str) -> ModuleType:
    from riva_speech.servicemaker.families import ctc  # noqa: PLC0415 - after the checks

    if class_name not in ctc.CLASSES:
        raise UnsupportedError(
            f"models of the class {class_name or 'unknown'} are not supported",
            hint="supported are " + ", ".join(ctc.CLASSES),
        )
    if find_spec("nemo") is None:
        raise UnsupportedError(
            "nemo2riva needs NeMo, which is not installed",
            hint="install the extra: pip install 'riva-qs[nemo]'",
        )
    _quiet_telemetry()
    return ctc


def _quiet_telemetry() -> None:
    """Keep the notices of NeMo's telemetry, which is off, out of this program's log."""
    logging.getLogger("nv_one_logger").setLevel(logging.CRITICAL)


if __name__ == "__main__":
    main()
