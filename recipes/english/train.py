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
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import torch
from torch.nn import functional

from recipes.english import hearing, model, spoil
from recipes.english.crew import Crew
from recipes.english.pool import Pool
from recipes.english.shards import read_shard

if TYPE_CHECKING:
    from numpy.random import Generator

    from recipes.english.pool import Batch

Tensor: TypeAlias = Any

# What a source's share of the utterances in a batch is.
SHARES = {
    "librispeech": 0.18,
    "ljspeech": 0.08,
    "speechocean": 0.06,
    "kokoro": 0.56,
    "espeak": 0.06,
    "flite": 0.06,
}
# Batches have utterances of at most so many seconds, and how many of all batches these are.
LENGTHS = ((8.0, 0.35), (14.0, 0.65))
# It begins with small batches of short clean speech, until it has found where the pieces are:
# a higher rate than this keeps it from finding them.
EASY_LENGTH = 6.0
EASY_PART = 0.45
EASY_UNTIL_LOSS = 2.2
EASY_UNTIL_TIME = 0.6
EASY_RATE = 4e-4
EASY_LEVEL = 0.05
BLANK = model.PIECES
MIDDLE_LAYER = 5
MIDDLE_WEIGHT = 0.4
EMA = 0.998
WARPS = 33


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
    """A kind of batch: so many utterances of at most so many seconds."""

    longest: float
    count: int

    @classmethod
    def draw(cls, seconds: float, rng: Generator, *, easy: bool) -> Size:
        """Draw a kind of batch with so many seconds in all, or less if it is easy."""
        if easy:
            return cls(EASY_LENGTH, int(EASY_PART * seconds / EASY_LENGTH))
        lengths, shares = zip(*LENGTHS, strict=True)
        longest = float(rng.choice(lengths, p=shares))
        return cls(longest, int(seconds / longest))


class Trainer:
    """A model in bfloat16, its weights and their running mean in full precision, an optimiser."""

    def __init__(self, net: Any, crew: Crew) -> None:  # noqa: ANN401 - NeMo has no types
        """Put the model on the crew's device, everywhere with the same weights."""
        self.crew, device = crew, crew.device
        self.net, self.device, self.on_gpu = net.to(device).train(), device, device != "cpu"
        net.preprocessor.featurizer.dither = 0.0
        self.parts = [one for one in net.parameters() if one.requires_grad]
        crew.same(one.data for one in self.parts)
        self.full = [one.detach().float().clone() for one in self.parts]
        self.mean = [one.clone() for one in self.full]
        self.row = torch.zeros(sum(one.numel() for one in self.full), device=device)
        pieces = self.row.split([one.numel() for one in self.full])
        self.gradients = [piece.view_as(one) for piece, one in zip(pieces, self.full, strict=True)]
        for one, gradient in zip(self.full, self.gradients, strict=True):
            one.grad = gradient
        self.rate = torch.zeros((), device=device)
        self.optimizer = torch.optim.AdamW(
            [{"params": [one for one in self.full if one.dim() > 1], "weight_decay": 2e-2},
             {"params": [one for one in self.full if one.dim() <= 1], "weight_decay": 0.0}],
            lr=self.rate, betas=(0.9, 0.98), fused=self.on_gpu)  # fmt: skip
        self.bank = spoil.warps(WARPS, model.MELS, device)
        self.middle: Tensor = None
        net.encoder.layers[MIDDLE_LAYER - 1].register_forward_hook(self._keep_middle)
        self.dropouts = [one for one in net.modules() if isinstance(one, torch.nn.Dropout)]
        self.shares = [one.p for one in self.dropouts]
        self.kind = torch.bfloat16 if self.on_gpu else torch.float32
        net.encoder.to(self.kind)
        net.decoder.to(self.kind)
        self.update(self.gradients)  # at rate 0: makes the optimiser's state

    def _keep_middle(self, _: Any, __: Any, output: Tensor) -> None:  # noqa: ANN401
        self.middle = output

    def drop(self, *, easy: bool) -> None:
        """Drop nothing from easy batches."""
        for one, share in zip(self.dropouts, self.shares, strict=True):
            one.p = 0.0 if easy else share

    def hear(self, audio: Tensor, lengths: Tensor, *, clean: bool) -> list[Tensor]:
        """Return log-probabilities at the end and in the middle of the network."""
        with torch.no_grad():
            signal = spoil.spoil(audio) if not clean else spoil.at_level(audio, EASY_LEVEL)
            features, frames = self.net.preprocessor(input_signal=signal, length=lengths)
            if not clean:
                features = spoil.mask(spoil.warp(features, self.bank), frames)
            features = features.to(self.kind)
        encoded, _ = self.net.encoder(audio_signal=features, length=frames)
        scores = self.net.decoder.decoder_layers
        both = (encoded, self.middle.transpose(1, 2))
        return [scores(one).transpose(1, 2).float().log_softmax(-1) for one in both]

    def judge(self, heard: list[Tensor], batch: Batch) -> tuple[Tensor, list[Tensor]]:
        """Return the loss for each piece said, and its derivatives by the log-probabilities."""
        leaves = [one.detach().requires_grad_() for one in heard]
        steps = tuple(encoded_lengths(batch.lengths).tolist())
        sizes = tuple(batch.target_lengths.tolist())
        losses = [
            functional.ctc_loss(one.transpose(0, 1), batch.targets, steps, sizes, blank=BLANK,
                                reduction="sum", zero_infinity=True) / sum(sizes)
            for one in leaves
        ]  # fmt: skip
        total = (1 - MIDDLE_WEIGHT) * losses[0] + MIDDLE_WEIGHT * losses[1]
        return losses[0].detach(), list(torch.autograd.grad(total, leaves))

    def update(self, gradients: list[Tensor]) -> None:
        """Change the weights, but for gradients that are not numbers, and their running mean."""
        torch._foreach_copy_(self.gradients, gradients)
        self.crew.average(self.row)
        norm = self.row.norm()
        self.row *= (1 / (norm + 1e-6)).clamp(max=1.0)
        if self.on_gpu:
            self.optimizer.found_inf = (~torch.isfinite(norm)).float()
            self.optimizer.grad_scale = None
        self.optimizer.step()
        with torch.no_grad():
            torch._foreach_lerp_(self.mean, self.full, 1 - EMA)
            torch._foreach_copy_(self.parts, self.full)

    def step(self, batch: Batch, rate: float, *, clean: bool) -> Tensor:
        """Learn from one batch; return its loss for each piece."""
        self.rate.fill_(rate)
        heard = self.hear(batch.audio, batch.lengths.to(self.device), clean=clean)
        loss, derivatives = self.judge(heard, batch)
        self.update(list(torch.autograd.grad(heard, self.parts, derivatives)))
        return loss

    def average_into(self, twin: Any) -> None:  # noqa: ANN401
        """Give another model, in full precision, the mean weights."""
        weights = [one for one in twin.parameters() if one.requires_grad]
        with torch.no_grad():
            torch._foreach_copy_(weights, self.mean)


def encoded_lengths(samples: Tensor) -> Tensor:
    """Return how many steps the encoder makes of so many samples, on the CPU."""
    frames = samples // 160
    for _ in range(3):
        frames = frames // 2 + 1
    return frames


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
        self.step, self.heard, self.easy, self.passed = 0, 0.0, True, 0.0

    def load(self) -> None:
        """Take in shards that have come since."""
        for table in sorted(self.options.shards.glob("*.json")):
            if table.name not in self.seen:
                self.seen.add(table.name)
                self.pool.add(read_shard(table))

    def run(self) -> None:
        """Train until the time is over, and write the model."""
        self.trainer.drop(easy=True)
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
        size = Size.draw(self.options.batch_seconds, self.rng, easy=self.easy)
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
    parser.add_argument("--batch-seconds", type=float, default=2040.0)
    parser.add_argument("--rate", type=float, default=1.2e-3)
    parser.add_argument("--warm-steps", type=int, default=200)
    parser.add_argument("--hours", type=float, default=260.0, help="room for speech")
    parser.add_argument("--report", type=int, default=100, help="steps between reports")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--seed", type=int, default=1)
    return parser.parse_args()


def main() -> None:
    """Train."""
    from nemo.core.classes.common import typecheck  # noqa: PLC0415 - it takes ten seconds

    options = parse()
    typecheck.set_typecheck_enabled(enabled=False)
    torch.set_num_threads(2)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    Course(options).run()


if __name__ == "__main__":
    main()
