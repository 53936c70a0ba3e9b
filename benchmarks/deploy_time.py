"""How long a checkpoint takes to become a repository, as a multiple of NeMo's own export of it.

Makes a FastConformer-CTC of 110 M random parameters. Then, in turn, NeMo exports it to ONNX, and
nemo2riva, riva-build and riva-deploy carry it into a repository for the CPU, each as the processes
that a user starts. Last, the deployed model is loaded as the server does, and by a bare ONNX
Runtime session on the same file, in turn. Prints the ratios of the medians with the smallest and
the largest ratio of a pair, and the peak memory as a multiple of the checkpoint.

    python -m benchmarks.deploy_time [PAIRS]
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

_LOADS = 9
_MAKE = """
import sys
from pathlib import Path
from support.checkpoints import Architecture, save_checkpoint
save_checkpoint(Architecture(cache_aware=False, bpe=True, width=512, layers=17), Path(sys.argv[1]))
"""
_EXPORT = """
import sys
from nemo.collections.asr.models import ASRModel
ASRModel.restore_from(sys.argv[1], map_location="cpu").eval().export(sys.argv[2])
"""
_PROGRAM = "riva_speech.servicemaker."


@dataclass(frozen=True)
class Cost:
    """Seconds of wall-clock time and peak memory in bytes."""

    seconds: float
    memory: int

    def __add__(self, other: Cost) -> Cost:
        """Return the cost of both, one after the other."""
        return Cost(self.seconds + other.seconds, max(self.memory, other.memory))


def cost(*arguments: str | Path) -> Cost:
    """Run Python with arguments and return what it took."""
    tests = Path(__file__).parents[1] / "tests"
    path = os.pathsep.join([str(tests), os.environ.get("PYTHONPATH", "")])
    began = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": path},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, process.args)
    return Cost(time.perf_counter() - began, usage.ru_maxrss * 1024)


def deploy(checkpoint: Path, folder: Path) -> dict[str, Cost]:
    """Carry a checkpoint into a new repository in ``folder``; return each program's cost."""
    riva, rmir = folder / "model.riva", folder / "model.rmir"
    return {
        "nemo2riva": cost("-m", f"{_PROGRAM}nemo2riva", checkpoint, "--out", riva),
        "riva-build": cost(
            *("-m", f"{_PROGRAM}riva_build", "speech_recognition", rmir, riva, "--offline")
        ),
        "riva-deploy": cost("-m", f"{_PROGRAM}riva_deploy", rmir, folder / "models"),
    }


def load_times(folder: Path) -> list[tuple[float, float]]:
    """Load a deployed model as the server does and bare, in turn; return pairs of seconds."""
    import onnxruntime  # the measured processes load their own

    from riva_speech.sessions.opening import open_session

    def bare() -> object:
        """Open the same file as nothing but ONNX Runtime."""
        graph = str(folder / "1" / "model.onnx")
        return onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])

    def seconds(load: object) -> float:
        """Return how long loading takes."""
        assert callable(load)
        began = time.perf_counter()
        load()
        return time.perf_counter() - began

    bare()
    return [(seconds(lambda: open_session(folder)), seconds(bare)) for _ in range(_LOADS)]


def ratio(pairs: list[tuple[float, float]]) -> str:
    """Return the ratio of the medians, and the range of the pairs' ratios."""
    ours, theirs = (statistics.median(column) for column in zip(*pairs, strict=True))
    each = [one / other for one, other in pairs]
    return f"{ours / theirs:.2f} times ({min(each):.2f} to {max(each):.2f})"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "pairs", nargs="?", metavar="PAIRS", type=int, default=2, help="(default: 2)"
    )
    pairs = parser.parse_args().pairs
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        checkpoint = root / "model.nemo"
        cost("-c", _MAKE, checkpoint)
        size = checkpoint.stat().st_size
        measured = []
        for number in range(pairs):
            folder = root / str(number)
            folder.mkdir()
            ours = deploy(checkpoint, folder)
            theirs = cost("-c", _EXPORT, checkpoint, folder / "exported.onnx")
            measured.append((ours, theirs))
            print(
                ", ".join(
                    f"{program} {one.seconds:.1f} s, {one.memory / size:.2f} times the checkpoint"
                    for program, one in {**ours, "NeMo's export": theirs}.items()
                )
            )
        totals = [(sum(o.seconds for o in ours.values()), t.seconds) for ours, t in measured]
        peaks = [max(one.memory for one in ours.values()) / size for ours, _ in measured]
        theirs_peak = max(theirs.memory for _, theirs in measured) / size
        (deployed,) = (root / "0" / "models").glob("riva-onnx-*")
        print(f"from .nemo ({size / 1e6:.0f} MB) to a repository: {ratio(totals)} NeMo's export")
        print(f"peak memory: {max(peaks):.2f} times the checkpoint (NeMo's: {theirs_peak:.2f})")
        print(f"loading: {ratio(load_times(deployed))} a bare session")


if __name__ == "__main__":
    main()
