"""Step 2: join clips into strings of digits, as people say numbers, and spoil some of them."""

from __future__ import annotations

import argparse
import random
from collections import defaultdict
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from recipes.corpus import (
    RATE,
    Clip,
    read_audio,
    read_manifest,
    write_audio,
    write_manifest,
)
from recipes.digits import effects

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from recipes.corpus import Samples

    Make = Callable[[list[Clip], random.Random], tuple[Samples, list[Clip]]]

LONGEST = 8
MAX_SECONDS = 9.0
Speakers = dict[str, list[Clip]]


def by_speaker(clips: Iterable[Clip]) -> Speakers:
    """Put clips under their speakers' names."""
    speakers: Speakers = defaultdict(list)
    for clip in clips:
        speakers[clip.speaker].append(clip)
    return speakers


def silence(rng: random.Random, longest: float) -> Samples:
    """Wait for up to `longest` seconds."""
    return np.zeros(int(rng.uniform(0, longest) * RATE), np.float32)


def choose(clips: list[Clip], rng: random.Random, words: int) -> list[Clip]:
    """Take clips of one speaker until they hold this many words."""
    chosen: list[Clip] = []
    while sum(len(clip.words) for clip in chosen) < words:
        chosen.append(rng.choice(clips))
    return chosen


def join(clips: list[Clip], rng: random.Random, factor: float = 1.0) -> Samples:
    """Join clips, with gaps that one speaker keeps alike."""
    pace = rng.choice((0.02, 0.1, 0.4))
    parts = []
    for clip in clips:
        parts += [effects.fade(effects.speed(read_audio(clip.audio), factor)), silence(rng, pace)]
    return np.concatenate(parts[:-1] or [silence(rng, 1.0)])


def cut(samples: Samples, clips: list[Clip], rng: random.Random) -> Samples:
    """Stop within the last word, as a stream may, so that words are known before they end."""
    longest = min(0.15, *(clip.duration / 4 for clip in clips)) if clips else 0.0
    return samples[: len(samples) - int(rng.uniform(0, longest) * RATE)]


def train_example(clips: list[Clip], rng: random.Random) -> tuple[Samples, list[Clip]]:
    """Say up to eight digits at some speed, in some room, with some noise; rarely none at all."""
    words = rng.choice((0, *[1] * 10, *range(2, LONGEST + 1), *range(2, LONGEST + 1)))
    chosen = choose(clips, rng, words) if words else []
    joined = join(chosen, rng, rng.uniform(0.8, 1.25))
    edge = rng.choice((0.05, 0.3, 1.0))
    end = silence(rng, edge)
    if rng.random() < 0.5:  # noqa: PLR2004 - half of them end like this
        joined, end = cut(joined, chosen, rng), end[:0]
    whole = np.concatenate([silence(rng, edge), joined, end])
    padded = np.pad(whole, (max(0, RATE // 8 - len(whole)), 0))
    return effects.distort(padded, rng, noise=0.8), chosen


def held_string(clips: list[Clip], rng: random.Random) -> tuple[Samples, list[Clip]]:
    """Join two to eight test takes, otherwise as they are, with gaps of up to 0.4 s."""
    chosen = choose(clips, rng, rng.randint(2, LONGEST))
    joined = join(chosen, rng)
    return np.concatenate([silence(rng, 0.3), joined, silence(rng, 0.3)]), chosen


def held_single(clips: list[Clip], _: random.Random) -> tuple[Samples, list[Clip]]:
    """Leave a test take as it was recorded."""
    return read_audio(clips[0].audio), clips


def render(clips: list[Clip], make: Make, audio: Path, seed: str) -> Clip:
    """Make one example of a speaker's clips."""
    samples, said = make(clips, random.Random(seed))
    text = " ".join(clip.text for clip in said)
    return Clip(audio, text, clips[0].speaker, write_audio(audio, samples), clips[0].split)


def render_all(groups: list[list[Clip]], make: Make, manifest: Path, seed: int) -> None:
    """Make one example of each group of clips, on all cores; write audio and manifest."""
    count = len(groups)
    folder = manifest.parent / manifest.stem
    audio = [folder / f"{number:05}.wav" for number in range(count)]
    seeds = [f"{seed} {number}" for number in range(count)]
    with ProcessPoolExecutor() as pool:
        made = pool.map(render, groups, [make] * count, audio, seeds, chunksize=64)
        rows = [row for row in made if row.duration <= MAX_SECONDS]
    write_manifest(manifest, rows)
    hours = sum(row.duration for row in rows) / 3600
    print(f"{manifest}: {len(rows)} utterances, {hours:.2f} h")


def pick(pools: list[Speakers], weights: list[float], count: int, seed: int) -> list[list[Clip]]:
    """Take one speaker's clips `count` times: a pool by weight, then a speaker of it."""
    rng = random.Random(seed)
    chosen = rng.choices(pools, weights, k=count)
    return [pool[rng.choice(sorted(pool))] for pool in chosen]


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("digits", type=Path, help="manifest of the real recordings")
    parser.add_argument("out", type=Path, help="folder to write")
    parser.add_argument("--synthetic", type=Path, nargs="*", default=[], help="their manifests")
    parser.add_argument("--utterances", type=int, default=30_000, help="training examples to make")
    parser.add_argument("--real", type=float, default=0.6, help="share of real recordings in them")
    parser.add_argument("--leave-out", default="", help="a speaker to test with only")
    parser.add_argument("--seed", type=int, default=1)
    return parser.parse_args()


def main() -> None:
    """Write train, test_single and test_string."""
    options = parse()
    out, seed = options.out, options.seed
    recordings = read_manifest(options.digits)
    real = [c for c in recordings if c.split == "train" and c.speaker != options.leave_out]
    test = [c for c in recordings if c.split == "test" and options.leave_out in ("", c.speaker)]
    pools = [by_speaker(real), *(by_speaker(read_manifest(path)) for path in options.synthetic)]
    rest = (1 - options.real) / max(1, len(options.synthetic))
    weights = [options.real, *[rest] * len(options.synthetic)]
    groups = pick(pools, weights, options.utterances, seed)
    render_all(groups, train_example, out / "train.jsonl", seed)
    render_all([[clip] for clip in test], held_single, out / "test_single.jsonl", seed)
    strings = pick([by_speaker(test)], [1.0], 200, seed)
    render_all(strings, held_string, out / "test_string.jsonl", seed)


if __name__ == "__main__":
    main()
