"""How long `riva-qs --help` takes, as a multiple of `python -c "import typer"`.

The two commands run in turn, so that a busy moment of the machine meets both. Prints the ratio of
the medians, and the quartiles of the ratios of neighbouring runs.

    python benchmarks/help_time.py [PAIRS]
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time

TYPER = (sys.executable, "-c", "import typer")
HELP = (sys.executable, "-m", "quickstart", "--help")


def seconds(command: tuple[str, ...]) -> float:
    """Return how long a command takes."""
    began = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began


def measure(pairs: int) -> tuple[float, list[float]]:
    """Return the ratio of the medians, and the quartiles of the ratios of the pairs."""
    seconds(TYPER), seconds(HELP)
    times = [(seconds(TYPER), seconds(HELP)) for _ in range(pairs)]
    typer_times, help_times = zip(*times, strict=True)
    ratio = statistics.median(help_times) / statistics.median(typer_times)
    return ratio, statistics.quantiles((h / t for t, h in times), n=4)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("pairs", nargs="?", metavar="PAIRS", type=int, default=20, help="of runs")
    ratio, (low, _, high) = measure(parser.parse_args().pairs)
    print(
        f"riva-qs --help takes {ratio:.2f} times as long as import typer ({low:.2f} to {high:.2f})"
    )


if __name__ == "__main__":
    main()
