"""What is measured: the same weights, made ready for us and for our peers.

    digits   a checkpoint of 0.9 M parameters
    english  the embedded model: a FastConformer-CTC of 11 M parameters
    large    one of 110 M random parameters; what greedy decoding costs does not depend on their
             values

Each is built once, in a folder outside of the tree: $RIVA_BENCHMARKS, else
~/.cache/riva-qs/benchmarks; ours anew where the export has changed. A build that was interrupted
goes on with the step that it was at. Needs NeMo. To build beforehand:

    python -m benchmarks.subjects digits english large
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).parents[1]
_TRAINED = {name: ROOT / "recipes" / name / f"{name}.nemo" for name in ("digits", "english")}
# The shapes of those with random weights.
_SIZES = {"large": {"width": 512, "layers": 17, "heads": 8, "channels": 256}}
SUBJECTS = (*_TRAINED, *_SIZES)
WEIGHTS = ("fp32", "int8")
_MAKE = """
import json, sys
from pathlib import Path
from support.checkpoints import Architecture, save_checkpoint
architecture = Architecture(cache_aware=True, bpe=True, **json.loads(sys.argv[2]))
save_checkpoint(architecture, Path(sys.argv[1]), talkative=False)
"""
_BUILD = (
    *("--name=subject", "--language_code=en-US"),
    *("--offline", "--streaming=True", "--chunk_size=0.16"),
)


# What decides the graphs: where one of these changes, they are built anew.
_PEERS_SOURCES = (ROOT / "benchmarks" / "peer_models.py", *_TRAINED.values())
_OUR_SOURCES = tuple(
    ROOT / "images" / "riva_speech" / "servicemaker" / f"{name}.py"
    for name in (
        *(f"families/{one}" for one in ("conformer", "ctc", "description", "folding", "graphs")),
        *(f"families/{one}" for one in ("models", "sharing", "streaming", "subsampling")),
        *("families/tracing", "families/uninitialised", "families/whole"),
        "quantisation",
    )
)


@dataclass(frozen=True)
class Subject:
    """One model with one kind of weights: NeMo's folder, and the repository that we serve."""

    theirs: Path
    repository: Path
    weights: str

    def peer(self, kind: str) -> Path:
        """Return the folder of NeMo's own graph; `kind` is offline or streaming."""
        return self.theirs / "peers" / self.weights / kind

    @property
    def checkpoint(self) -> Path:
        """What NeMo itself runs."""
        return self.theirs / "model.nemo"


def subject(name: str, weights: str) -> Subject:
    """Return a subject, which is built where it is not there yet."""
    root = Path(os.environ.get("RIVA_BENCHMARKS", "~/.cache/riva-qs/benchmarks")).expanduser()
    theirs = root / f"{name}-{_digest(_PEERS_SOURCES)}"
    _made(theirs, lambda folder: _build_theirs(name, folder))
    exported = root / f"{theirs.name}-riva-{_digest(_OUR_SOURCES)}"
    _made(exported, lambda folder: _convert(theirs / "model.nemo", folder))
    ours = root / f"{exported.name}-{weights}"
    _made(ours, lambda folder: _deploy(exported / "model.riva", weights, folder))
    return Subject(theirs, ours / "models", weights)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Let a command line choose a subject: `subject` and `weights` of what it parses."""
    parser.add_argument("--subject", choices=SUBJECTS, default="digits", help="(default: digits)")
    parser.add_argument("--weights", choices=WEIGHTS, default="fp32", help="(default: fp32)")


def _digest(sources: tuple[Path, ...]) -> str:
    """Return a short hash of files, and of how the checkpoints are made."""
    digest = hashlib.sha256(_MAKE.encode() + json.dumps(_SIZES).encode())
    for source in sources:
        digest.update(source.read_bytes())
    return digest.hexdigest()[:8]


def _made(folder: Path, build: Callable[[Path], None]) -> None:
    """Build a folder beside its place, and put it there once it is whole."""
    if folder.is_dir():
        return
    draft = folder.with_name(f".{folder.name}-{os.getpid()}")
    draft.mkdir(parents=True)
    try:
        build(draft)
        draft.rename(folder)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _build_theirs(name: str, folder: Path) -> None:
    checkpoint = folder / "model.nemo"
    if name in _TRAINED:
        shutil.copy(_TRAINED[name], checkpoint)
    else:
        _run("-c", _MAKE, checkpoint, json.dumps(_SIZES[name]))
    _run("-m", "benchmarks.peer_models", checkpoint, folder / "peers")


def _convert(checkpoint: Path, folder: Path) -> None:
    program = "riva_speech.servicemaker.nemo2riva"
    _run("-m", program, checkpoint, "--out", folder / "model.riva")


def _deploy(exported: Path, weights: str, folder: Path) -> None:
    rmir = folder / "model.rmir"
    options = (*_BUILD, f"--nn.weights={weights}")
    _run(
        "-m", "riva_speech.servicemaker.riva_build", "speech_recognition", rmir, exported, *options
    )
    _run("-m", "riva_speech.servicemaker.riva_deploy", rmir, folder / "models")
    rmir.unlink()


def _run(*arguments: object) -> None:
    """Run Python with arguments, as a process: what one step held is gone at the next."""
    words = [str(argument) for argument in arguments]
    sys.stderr.write(f"building: {' '.join(words[:2])[:70].splitlines()[0]}\n")
    path = os.pathsep.join(map(str, (ROOT / "tests", ROOT / "images", ROOT)))
    done = subprocess.run(
        [sys.executable, "-W", "ignore", *words],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"{' '.join(words[:2])} failed:\n{done.stderr[-3000:]}")


def _known(name: str) -> str:
    if name not in SUBJECTS:
        raise argparse.ArgumentTypeError(f"{name!r} is none of {', '.join(SUBJECTS)}")
    return name


def main() -> None:
    """Build subjects with either kind of weights, and print where they are served from."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    names = ", ".join(SUBJECTS)
    parser.add_argument("subjects", nargs="*", metavar="SUBJECT", type=_known, help=f"of {names}")
    for wanted in parser.parse_args().subjects or SUBJECTS:
        for kind in WEIGHTS:
            print(subject(wanted, kind).repository)


if __name__ == "__main__":
    main()
