"""Train the model for a fixed time, while more speech may still be being made.

`torchrun --nproc-per-node 4 -m recipes.english.train ...` trains on four GPUs: each process has all
speech, draws batches of its own, and learns from the mean of all gradients.
"""

from __future__ import annotations

import argparse
import math
import random
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch

from recipes.english import hearing, model
from recipes.english.crew import Crew
from recipes.english.pool import Pool
from recipes.english.shards import read_shard
from recipes.english.trainer import Trainer

Tensor: TypeAlias = Any

# What a source's share of the utterances in a batch is. Recordings are few: more often than this,
# and they are known by heart.
SHARES = {
    "librispeech": 0.04,
    "ljspeech": 0.03,
    "speechocean": 0.03,
    "kokoro": 0.86,
    "espeak": 0.02,
    "flite": 0.02,
}
# What is said in an item, one utterance or up to three, is of at most so many seconds.
LONGEST = 14.0
# It begins with small batches of short clean speech, until it has found where the pieces are:
# a higher rate than this keeps it from finding them.
EASY_LENGTH = 6.0
EASY_PART = 0.45
EASY_UNTIL_LOSS = 2.2
EASY_UNTIL_TIME = 0.6
EASY_RATE = 4e-4


@dataclass
class Clock:
    """The learning rate: low at first, then up, then down in a half cosine that ends on time.

    Attributes:
        seconds: How long the training lasts.
        peak: The highest learning rate.
        warm_steps: How many steps it rises, from nothing and again after the easy beginning.
    """

    seconds: float
    peak: float
    warm_steps: int
    started: float
    turned: int | None = None

    def passed(self) -> float:
        """Return the share of the time that has gone."""
        return (time.monotonic() - self.started) / self.seconds

    def rate(self, step: int, passed: float) -> float:
        """Return the learning rate of a step, when a share of the time has gone."""
        if self.turned is None:
            return EASY_RATE * min((step + 1) / self.warm_steps, 1.0)
        falling = 0.5 * (1 + math.cos(math.pi * min(passed, 1.0)))
        risen = min((step - self.turned) / self.warm_steps, 1.0)
        return (EASY_RATE + (self.peak - EASY_RATE) * risen) * max(falling, 1e-3)


@dataclass(frozen=True)
class Size:
    """So many items of at most so many seconds."""

    longest: float
    count: int

    @classmethod
    def of(cls, seconds: float, *, easy: bool) -> Size:
        """Return the size of a batch of so many seconds in all: less if easy, else heard twice."""
        if easy:
            return cls(EASY_LENGTH, int(EASY_PART * seconds / EASY_LENGTH))
        return cls(LONGEST, int(seconds / LONGEST / 2))


class Course:
    """A training from its beginning to its end."""

    def __init__(self, options: argparse.Namespace) -> None:
        """Make the model and wait for the first speech."""
        self.crew = Crew(options.device)
        self.options, self.rng = options, np.random.default_rng([options.seed, self.crew.rank])
        random.seed(options.seed + self.crew.rank)  # NeMo draws the look-ahead of each batch
        torch.manual_seed(options.seed + self.crew.rank)
        self.clock = Clock(options.seconds, options.rate, options.warm_steps, time.monotonic())
        net, self.twin = model.build(options.tokenizer), model.build(options.tokenizer)
        if options.weights:
            model.load_weights(net, options.weights)
        device = self.crew.device
        self.twin.to(device).eval()
        self.trainer = Trainer(net, self.crew)
        self.pool = Pool(options.hours, SHARES, net.tokenizer.tokenizer.encode, device)
        self.seen: set[str] = set()
        while len(self.seen) < options.shards_at_least:
            self.load()
            time.sleep(0.2)
        self.losses: list[Tensor] = []
        self.step, self.heard, self.passed = 0, 0.0, 0.0
        self.easy = options.weights is None
        self.clock.turned = None if self.easy else 0
        if options.compile:
            self.trainer.compile()
            self.pool.interpolate = torch.compile(self.pool.interpolate, dynamic=False)

    def load(self) -> None:
        """Take in shards that have come since."""
        for table in sorted(self.options.shards.glob("*.json")):
            if table.name not in self.seen:
                self.seen.add(table.name)
                self.pool.add(read_shard(table))

    def run(self) -> None:
        """Train until the time is over, and write the model."""
        self.trainer.drop(easy=self.easy)
        tried = 0
        while self.passed < 1:
            self.learn()
            if self.step % self.options.report == 0:
                self.report()
            if self.passed * (self.options.evaluations + 1) >= tried + 1:
                tried += 1
                self.keep(f"{self.options.out.stem}-{tried}")
        self.end()

    def end(self) -> None:
        """Write the model."""
        if not self.crew.first:
            return
        self.keep(self.options.out.stem)
        model.save(self.twin, self.options.out)
        print(f"{self.step} steps, {self.heard / 3600:.0f} h heard", flush=True)

    def learn(self) -> None:
        """Learn from one batch."""
        self.passed = self.crew.agree(self.clock.passed())
        size = Size.of(self.options.batch_seconds, easy=self.easy)
        batch = self.pool.batch(size.longest, size.count, self.rng)
        rate = self.clock.rate(self.step, self.passed)
        self.losses.append(self.trainer.step(batch, rate, clean=self.easy))
        self.heard += size.longest * size.count * self.crew.size
        self.step += 1

    def report(self) -> None:
        """Print the mean loss, end the easy beginning when it is low, take in what has come."""
        mean = self.crew.agree(float(torch.stack(self.losses).nanmean()))
        self.losses.clear()
        if self.easy and (mean < EASY_UNTIL_LOSS or self.passed > EASY_UNTIL_TIME):
            self.easy, self.clock.turned = False, self.step
            self.trainer.drop(easy=False)
        self.load()
        hours = {name: round(self.pool.hours(name), 1) for name in SHARES}
        if self.crew.first:
            print(f"step {self.step}, {self.passed * self.clock.seconds:.0f} s, loss {mean:.3f}, "
                  f"{self.heard / 3600:.0f} h heard, {hours}", flush=True)  # fmt: skip

    def keep(self, name: str) -> None:
        """Write the mean weights, and try them on the development lists."""
        if not self.crew.first:
            return
        self.trainer.average_into(self.twin)
        weights = {key: value.half() for key, value in self.twin.named_parameters()}
        torch.save(weights, self.options.out.parent / f"{name}.pt")
        if self.options.lists:
            hearing.report(self.twin, self.options.lists, self.trainer.device)


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("shards", type=Path, help="folder of shards; new ones are taken in")
    parser.add_argument("tokenizer", type=Path, help="folder of the tokenizer")
    parser.add_argument("out", type=Path, help="the .nemo file to write")
    parser.add_argument("--lists", type=Path, nargs="*", help="manifests to try the model on")
    parser.add_argument("--seconds", type=float, default=900.0)
    parser.add_argument("--weights", type=Path, help="a .nemo or .pt to go on from")
    parser.add_argument("--shards-at-least", type=int, default=1, help="wait for so many")
    parser.add_argument("--evaluations", type=int, default=2, help="on the way")
    parser.add_argument("--batch-seconds", type=float, default=1360.0, help="of one GPU")
    parser.add_argument("--rate", type=float, default=1.3e-3)
    parser.add_argument(
        "--compile",
        action=argparse.BooleanOptionalAction,
        default=False,
        help="compile the layers for the GPU; it takes a minute first",
    )
    parser.add_argument("--warm-steps", type=int, default=200)
    parser.add_argument("--hours", type=float, default=360.0, help="room for speech")
    parser.add_argument("--report", type=int, default=100, help="steps between reports")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    if options.compile and options.lists:
        parser.error("--lists with --compile: trying the lists beside compiled layers never ended; "
                     "try what the training writes, with recipes.evaluate")  # fmt: skip
    return options


def main() -> None:
    """Train."""
    from nemo.core.classes.common import typecheck  # it takes ten seconds

    options = parse()
    typecheck.set_typecheck_enabled(enabled=False)
    torch.set_num_threads(2)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    Course(options).run()


if __name__ == "__main__":
    main()
