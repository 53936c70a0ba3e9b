"""Step 3: let synthesisers say the sentences, as shards that a training can take in at once."""

from __future__ import annotations

import argparse
import io
import os
import random
import subprocess
import time
from collections import defaultdict
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import soundfile

from recipes.corpus import RATE, resample
from recipes.english.shards import to_int16, write_shard

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from multiprocessing.process import BaseProcess

    from numpy.typing import NDArray

    from recipes.english.shards import Samples

    Say = Callable[[str, random.Random], Samples]

SHARD_SECONDS = 3600.0
# Sentences are grouped by length within so many of them.
SHUFFLED_TOGETHER = 30_000
READ_TOGETHER = 192
# How much speech the GPU makes at once.
BATCH_SECONDS = 240.0
TOKENS_PER_SECOND = 14.0
LONGEST_TOKENS = 300

ACCENTS = (
    "en-us", "en-us", "en-us", "en-us-nyc", "en-gb", "en-gb-x-rp", "en-gb-scotland",
    "en-gb-x-gbclan", "en-gb-x-gbcwmd", "en-029",
)  # fmt: skip
VARIANTS = (
    "adam", "Alex", "Alicia", "Andrea", "Andy", "Annie", "antonio", "belinda", "benjamin",
    "boris", "caleb", "david", "Denis", "ed", "edward", "f1", "f2", "f3", "f4", "f5", "Gene",
    "grandma", "grandpa", "Henrique", "iven", "Jacky", "john", "klatt", "klatt2", "Lee", "linda",
    "m1", "m2", "m3", "m4", "m5", "m6", "m7", "m8", "marcelo", "Marco", "max", "Michael",
    "michel", "miguel", "Mike", "norbert", "pablo", "paul", "quincy", "rob", "robert", "sandro",
    "shelby", "steph", "travis", "victor", "zac",
)  # fmt: skip
FLITE_VOICES = ("slt", "rms", "awb", "kal16")


@dataclass(frozen=True)
class Sentences:
    """What is to be said, as words and as Kokoro's tokens."""

    texts: list[str]
    ids: list[NDArray[np.uint8]]

    @classmethod
    def read(cls, path: Path) -> Sentences:
        """Read the sentences that `prepare` has chosen."""
        with np.load(path) as file:
            texts = file["texts"].tobytes().decode().split("\n")
            ends = np.cumsum(file["counts"].astype(np.int64))
            return cls(texts, np.split(file["ids"], ends[:-1]))


class Writer:
    """Collects utterances into shards."""

    def __init__(self, folder: Path, name: str, source: str) -> None:
        """Write shards NAME-0, NAME-1 and so on into a folder."""
        self.folder, self.name, self.source = folder, name, source
        self.said: list[tuple[str, Samples]] = []
        self.seconds = self.hours = 0.0
        self.count = 0

    def add(self, text: str, samples: Samples) -> None:
        """Take in an utterance."""
        self.said.append((text, samples))
        self.seconds += len(samples) / RATE
        if self.seconds > SHARD_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Write what there is."""
        if self.said:
            self.hours += write_shard(
                self.folder, f"{self.name}-{self.count}", self.source, self.said
            )
            self.said, self.seconds, self.count = [], 0.0, self.count + 1


def kokoro(options: argparse.Namespace, part: int) -> None:
    """Say every so manieth sentence with Kokoro, many at a time."""
    import torch  # only this synthesiser needs it

    from recipes.english.kokoro import Kokoro, Manner, Voices

    torch.set_num_threads(1)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    torch.manual_seed(options.seed + part)
    rng = np.random.default_rng([options.seed, part])
    sentences = Sentences.read(options.sentences)
    voice, voices = Kokoro(options.graph, nth(options.device, part)), Voices(options.voices)
    writer = Writer(options.out, f"kokoro-{part}", "kokoro")
    began = time.monotonic()
    for group in groups(sentences.ids, range(part, len(sentences.ids), options.processes), rng):
        if time.monotonic() - began > options.seconds or writer.hours > options.hours:
            break
        tokens = np.stack([sentences.ids[number] for number in group]).astype(np.int64)
        styles = voices.draw(rng, tokens.shape[1], len(group))
        manner = Manner.draw(rng, len(group))
        batch = max(1, int(BATCH_SECONDS * TOKENS_PER_SECOND / tokens.shape[1]))
        for number, samples in voice.speak(tokens, styles, manner, batch):
            writer.add(sentences.texts[group[number]], samples)
    writer.flush()
    seconds = time.monotonic() - began
    print(f"kokoro {part}: {writer.hours:.2f} h in {seconds:.0f} s, "
          f"{writer.hours * 3600 / seconds:.0f} times real time", flush=True)  # fmt: skip


def nth(device: str, part: int) -> str:
    """Spread processes over all GPUs."""
    import torch

    return f"cuda:{part % torch.cuda.device_count()}" if device == "cuda" else device


def groups(
    ids: list[NDArray[np.uint8]], numbers: range, rng: np.random.Generator
) -> Iterator[list[int]]:
    """Group sentences of as many tokens; the first are the most wanted."""
    for start in range(0, len(numbers), SHUFFLED_TOGETHER):
        alike: dict[int, list[int]] = defaultdict(list)
        for number in numbers[start : start + SHUFFLED_TOGETHER]:
            if len(ids[number]) <= LONGEST_TOKENS:
                alike[len(ids[number])].append(number)
        found = [
            same[place : place + READ_TOGETHER]
            for same in alike.values()
            for place in range(0, len(same), READ_TOGETHER)
        ]
        yield from (found[place] for place in rng.permutation(len(found)))


def programs(options: argparse.Namespace, part: int) -> None:
    """Say sentences with a program, one at a time, each in another voice."""
    say = {"espeak": espeak, "flite": flite}[options.what]
    rng = random.Random(options.seed * 1000 + part)
    sentences = Sentences.read(options.sentences)
    writer = Writer(options.out, f"{options.what}-{part}", options.what)
    began = time.monotonic()
    while time.monotonic() - began < options.seconds and writer.hours < options.hours:
        text = rng.choice(sentences.texts)
        writer.add(text, say(text, rng))
    writer.flush()
    print(f"{options.what} {part}: {writer.hours:.2f} h", flush=True)


def espeak(text: str, rng: random.Random) -> Samples:
    """Say a sentence with espeak-ng, in a random accent, voice, speed and pitch."""
    voice = f"{rng.choice(ACCENTS)}+{rng.choice(VARIANTS)}"
    speed, pitch = rng.randint(120, 230), rng.randint(15, 85)
    command = ["espeak-ng", "-v", voice, "-s", str(speed), "-p", str(pitch), "--stdout", text]
    wav = subprocess.run(command, check=True, capture_output=True).stdout
    return resampled(wav)


def flite(text: str, rng: random.Random) -> Samples:
    """Say a sentence with one of flite's voices."""
    stretch, pitch = rng.uniform(0.8, 1.25), rng.uniform(90, 210)
    path = Path(f"/dev/shm/flite-{os.getpid()}.wav")  # noqa: S108 - memory, and one process each
    command = ["flite", "-voice", rng.choice(FLITE_VOICES), "-t", text, "-o", str(path),
               "--setf", f"duration_stretch={stretch:.2f}",
               "--setf", f"int_f0_target_mean={pitch:.0f}"]  # fmt: skip
    subprocess.run(command, check=True, capture_output=True)
    return resampled(path.read_bytes())


def resampled(wav: bytes) -> Samples:
    """Read a WAV file at the model's rate."""
    samples, rate = soundfile.read(io.BytesIO(wav), dtype="float32")
    return to_int16(resample(samples, rate))


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("kokoro", "espeak", "flite"))
    parser.add_argument("sentences", type=Path, help="the .npz of `prepare`")
    parser.add_argument("out", type=Path, help="folder of shards")
    parser.add_argument("--graph", type=Path, help="Kokoro-82M as ONNX")
    parser.add_argument("--voices", type=Path, help="its voices, as .npz")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=600.0, help="stop after")
    parser.add_argument("--hours", type=float, default=1000.0, help="of speech a process makes")
    parser.add_argument("--seed", type=int, default=1)
    return parser.parse_args()


def main() -> None:
    """Start the processes and wait for them."""
    options = parse()
    run = kokoro if options.what == "kokoro" else programs
    context = get_context("spawn")
    crew: list[BaseProcess] = [
        context.Process(target=run, args=(options, part)) for part in range(options.processes)
    ]
    for one in crew:
        one.start()
    for one in crew:
        one.join()


if __name__ == "__main__":
    main()
