"""How fast a verified download is, as ratios to other ways to fetch the same file, on loopback.

    python benchmarks/download_rate.py [--mib 1024] [--rounds 7]

Four ways take turns in one run, so that a busy moment of the machine meets all of them:

- ours: list, link, and `transfer.fetch` by 8 ranges, hashed, flushed to the disk and renamed;
- curl: 8 `curl` processes, each with an eighth of the file; nothing hashed, nothing flushed;
- verified: the same, and then `sha256sum` over the eighths;
- ngcsdk: list, link and all, `download_version` with ngcsdk's own settings; nothing hashed.

The file comes from nginx, over plain HTTP or over TLS as from NGC, as fast as it can and, in a
second table, over a line where each connection gets `--slow` MiB/s. Lists and links come from the
tests' stand-in for NGC. Files go to memory, unless `--folder` says otherwise: a disk that is slower
than the line would be all that is measured, since only ours waits for it.

It prints the median rates and the processor time a GiB takes, of who fetches and of who serves,
which a busy machine changes less; then the median and the quartiles of the ratios within each
round. Against curl, which is given the address, ours counts from the list on. "bound" is the best
ratio that one who moves bytes as curl does and hashes them could have on this machine: hashing
needs a core for as long as SHA-256 takes by itself, and processor time that curl and nginx leave
over.
Last, a transfer is killed half way, and the server counts what the next one asks for.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import signal
import statistics
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.download_ways import WAYS, Bench, Run, bench

MEMORY = Path("/dev/shm")  # noqa: S108 - files of a benchmark, in a folder of their own


def hash_rate() -> float:
    """Return how many bytes a second one core hashes, at its best."""
    block, count, rates = bytes(1 << 18), 512, []
    for _ in range(5):
        digest, began = hashlib.sha256(), time.perf_counter()
        for _ in range(count):
            digest.update(block)
        rates.append(count * len(block) / (time.perf_counter() - began))
    return max(rates)


def bound(curl: Run, hashing: float) -> float:
    """Return the best ratio to a run of curl for one who hashes too, which takes `hashing` s."""
    shared = (curl.fetching + curl.serving + hashing) / (os.cpu_count() or 1)
    return curl.listed / max(curl.listed, hashing, shared)


def spread(values: list[float]) -> str:
    """Return the median and the quartiles."""
    low, middle, high = statistics.quantiles(values, n=4)
    return f"{middle:.2f} ({low:.2f} to {high:.2f})"


def described(taken: list[Run], gib: float) -> str:
    """Return the median rate of runs, and what a GiB takes of processors."""
    rate = gib * 1024 / statistics.median(run.whole for run in taken)
    fetching = statistics.median(run.fetching for run in taken) / gib
    serving = statistics.median(run.serving for run in taken) / gib
    return f"{rate:.0f} MiB/s, {fetching:.2f} s of processors a GiB, the server {serving:.2f} s"


def compare(here: Bench, rounds: int, hashing: float) -> None:
    """Let all ways take turns, and print rates and ratios."""
    runs: dict[str, list[Run]] = {way: [] for way in WAYS}
    for way in WAYS:
        here.run(way)
    for _ in range(rounds):
        for way, taken in runs.items():
            taken.append(here.run(way))
    for way, taken in runs.items():
        print(f"  {way}: {described(taken, here.size / (1 << 30))}")
    own, curl = runs["ours"], runs["curl"]
    for way in ("curl", "verified"):
        ratios = [t.listed / o.listed for t, o in zip(runs[way], own, strict=True)]
        print(f"  ours / {way}: {spread(ratios)}")
    bounds = [bound(run, hashing) for run in curl]
    print(f"  bound of ours / curl: {spread(bounds)}")
    parts = [t.listed / o.listed / b for t, o, b in zip(curl, own, bounds, strict=True)]
    print(f"  ours / curl / bound: {spread(parts)}")
    ratios = [t.whole / o.whole for t, o in zip(runs["ngcsdk"], own, strict=True)]
    print(f"  ours / ngcsdk: {spread(ratios)}")
    best = [t.whole * b / c.listed for t, b, c in zip(runs["ngcsdk"], bounds, curl, strict=True)]
    print(f"  bound of ours / ngcsdk: {spread(best)}")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--mib", type=int, default=1024, help="the size of the file")
    parser.add_argument("--rounds", type=int, default=7, help="how often each way is taken")
    parser.add_argument("--scheme", choices=["http", "https"], default="https")
    slow = "the slow line's MiB/s a connection; 0 leaves it out"
    parser.add_argument("--slow", type=int, default=8, help=slow)
    parser.add_argument("--folder", type=Path, help="where the files go [memory]")
    arguments = parser.parse_args()
    # Else the files would stay in memory, and nginx with them.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("terminated"))
    size, base = arguments.mib << 20, arguments.folder or (MEMORY if MEMORY.is_dir() else None)
    hashing = size / hash_rate()
    print(f"{arguments.mib} MiB over {arguments.scheme}, {os.cpu_count()} cores")
    print(f"  SHA-256 alone: {arguments.mib / hashing:.0f} MiB/s a core")
    with (
        tempfile.TemporaryDirectory(dir=base) as folder,
        bench(Path(folder), size, arguments.scheme, arguments.slow) as here,
    ):
        print("as fast as it goes")
        compare(here, arguments.rounds, hashing)
        missing, again = here.killed()
        print(f"  killed half way: {missing} bytes missing, {again} sent again")
        if arguments.slow:
            print(f"{arguments.slow} MiB/s a connection", flush=True)
            here.ngc.address = here.blobs.url(slow=True)
            compare(here, arguments.rounds, hashing)


if __name__ == "__main__":
    main()
