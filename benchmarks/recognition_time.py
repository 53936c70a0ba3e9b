"""How long one deployed model takes for a recording, as a multiple of another's time.

Both repositories hear the same recording in turn, so that a busy moment of the machine meets both:
whole, and as a stream. With a model that was built twice this compares decoders (greedy with
flashlight) or weights (fp32 with int8). Prints the ratio of the medians, the quartiles of the
ratios of neighbouring runs, and the share of the recording's length that the second model took.

    python benchmarks/recognition_time.py models-fp32 models-int8 recording.wav [ROUNDS]
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path
from typing import TYPE_CHECKING

from riva_speech.asr.loading import load_recognizers
from riva_speech.audio.stream import DeclaredFormat, decode_all

if TYPE_CHECKING:
    from riva_speech.asr.loading import Recognizer
    from riva_speech.audio.features import Samples


def seconds(recognizer: Recognizer, samples: Samples) -> float:
    """Return how long a recogniser takes for a whole recording."""
    began = time.perf_counter()
    recognizer.recognize(samples)
    return time.perf_counter() - began


def compare(base: Recognizer, other: Recognizer, audio: bytes, rounds: int) -> None:
    """Print one line for two pipelines of the same type."""
    rate = base.config.acoustic.features.sample_rate
    samples = decode_all(audio, DeclaredFormat(), rate)
    seconds(base, samples), seconds(other, samples)
    times = [(seconds(base, samples), seconds(other, samples)) for _ in range(rounds)]
    base_times, other_times = zip(*times, strict=True)
    ratio = statistics.median(other_times) / statistics.median(base_times)
    low, _, high = statistics.quantiles((second / first for first, second in times), n=4)
    share = statistics.median(other_times) / (len(samples) / rate)
    print(
        f"{base.config.type}: {ratio:.2f} times as long ({low:.2f} to {high:.2f}), "
        f"{100 * share:.1f} % of the recording's length"
    )


def main() -> None:
    """Compare the pipelines of two repositories, type by type."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("first", type=Path, metavar="MODELS", help="a repository")
    parser.add_argument("second", type=Path, metavar="MODELS", help="the one to compare with it")
    parser.add_argument("recording", type=Path, metavar="RECORDING")
    parser.add_argument("rounds", nargs="?", type=int, default=20, help="(default: 20)")
    chosen = parser.parse_args()
    others = {one.config.type: one for one in load_recognizers(chosen.second)}
    for base in load_recognizers(chosen.first):
        if base.config.type in others:
            audio = chosen.recording.read_bytes()
            compare(base, others[base.config.type], audio, chosen.rounds)


if __name__ == "__main__":
    main()
