"""Prove that nothing of the development lists is in the training data, neither text nor sound.

Sound is compared by fingerprints: whether each band of frequencies grows more than the next one,
ten times a second. Noise, loudness and codecs change few of these; other speech, about half.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from recipes.corpus import RATE, read_audio
from recipes.english.prepare import heldout, rows
from recipes.english.shards import read_shard
from recipes.english.synthesize import Sentences

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from numpy.typing import NDArray

    from recipes.english.leaks import Heldout

    Samples: TypeAlias = NDArray[np.float32]
    Signs: TypeAlias = NDArray[np.float32]

STEP = RATE // 10
BANDS = 17
LOWEST_HERTZ, HIGHEST_HERTZ = 200.0, 6000.0
# So many steps of a development recording are looked for at a time: 2 s.
WINDOW = 20
# Other speech agrees in 0.5 of the signs with a deviation of 0.05, the same sound in 0.8 and more.
SAME = 0.75
TOGETHER = 512
# Training recordings are compared at as many places within a step.
PARTS = 4


def fingerprint(samples: Samples) -> Signs:
    """Return the signs of how the bands change against each other, [steps, bands - 1]."""
    frames = np.lib.stride_tricks.sliding_window_view(samples, 2 * STEP)[::STEP]
    power = np.abs(np.fft.rfft(frames * np.hanning(2 * STEP))) ** 2
    edges = np.geomspace(LOWEST_HERTZ, HIGHEST_HERTZ, BANDS + 1) * 2 * STEP / RATE
    bands = np.add.reduceat(power, edges.astype(int), axis=1)[:, :BANDS]
    change = np.diff(np.log(bands + 1e-9), axis=0)
    return np.asarray(np.sign(np.diff(change, axis=1)), np.float32)


def windows(signs: Signs, hop: int) -> Signs:
    """Cut fingerprints into windows, [windows, signs]."""
    if len(signs) < WINDOW:
        return np.zeros((0, WINDOW * signs.shape[1]), np.float32)
    cut = np.lib.stride_tricks.sliding_window_view(signs, WINDOW, axis=0)[::hop]
    return np.ascontiguousarray(cut.reshape(len(cut), -1))


def likeness(looked_for: Signs, among: Signs) -> float:
    """Return the greatest share of equal signs of two windows, one of each."""
    best = 0.0
    for start in range(0, len(among), TOGETHER):
        products = looked_for @ among[start : start + TOGETHER].T
        best = max(best, float(products.max(initial=-1.0)) / looked_for.shape[1])
    return (1 + best) / 2


def shared_sound(development: Iterable[Path], training: Iterable[Samples]) -> Iterator[str]:
    """Name development recordings that are heard in training recordings too."""
    among = np.concatenate([
        windows(fingerprint(one[part * STEP // PARTS :]), 1)
        for one in training
        for part in range(PARTS)
    ])  # fmt: skip
    for path in development:
        samples = read_audio(path)
        if len(samples) < (WINDOW + 2) * STEP:
            continue
        alike = likeness(windows(fingerprint(samples), WINDOW // 2), among)
        if alike > SAME:
            yield f"{path}: {alike:.2f} of the signs of 2 s are those of a training recording"


def shared_text(held: Heldout, texts: Iterable[str]) -> Iterator[str]:
    """Name texts that equal or share six words in a row with the development lists."""
    return (text for text in texts if held.shares(text))


def utterances(folder: Path) -> Iterator[tuple[str, Samples]]:
    """Return the words and sound of recorded speech in shards."""
    for table in sorted(folder.glob("*.json")):
        shard = read_shard(table)
        pieces = np.split(shard.samples, np.cumsum(shard.lengths)[:-1])
        yield from zip(
            shard.texts, (np.asarray(one, np.float32) / 32768 for one in pieces), strict=True
        )


def prove(options: argparse.Namespace) -> int:
    """Compare everything; return how much is shared."""
    held = heldout(options.lists)
    recorded = list(utterances(options.real))
    learnt = (path.read_text(encoding="utf-8").splitlines() for path in options.language_model)
    texts = [*Sentences.read(options.sentences).texts, *(text for text, _ in recorded)]
    texts += [line for lines in learnt for line in lines]
    recordings = [path.parent / row["audio_filepath"] for path in options.lists
                  for row in rows(path)]  # fmt: skip
    found = [*shared_text(held, texts), *shared_sound(recordings, (sound for _, sound in recorded))]
    for one in found:
        print(one)
    print(f"{len(texts)} texts for training against {len(held.texts)} for development, "
          f"{len(recorded)} recordings against {len(recordings)}: {len(found)} shared")  # fmt: skip
    return len(found)


def main() -> None:
    """Read the command line; exit with 1 if anything is shared."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sentences", type=Path, help="the .npz of `prepare`")
    parser.add_argument("real", type=Path, help="folder of the shards of recorded speech alone")
    parser.add_argument("--lists", type=Path, nargs="+", required=True)
    parser.add_argument(
        "--language-model", type=Path, nargs="*", default=[], help="its text.txt, too"
    )
    sys.exit(prove(parser.parse_args()) > 0)


if __name__ == "__main__":
    main()
