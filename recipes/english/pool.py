"""All training speech on the GPU, and batches of it that are nearly full."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import torch

from recipes.corpus import RATE

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.random import Generator
    from numpy.typing import NDArray

    from recipes.english.shards import Shard

    Encode = Callable[[list[str]], list[list[int]]]
    Numbers: TypeAlias = NDArray[np.int64]

Tensor: TypeAlias = Any

SEGMENTS = 3
NOTHING = -1
# Speech this short says too little to fill a gap with.
SHORTEST = int(0.8 * RATE)
# A source is drawn from if so large a part of it fits.
FITTING = 0.2


@dataclass(frozen=True)
class Batch:
    """Audio, [batch, samples], and the pieces said in it, [batch, most]; lengths are on the CPU."""

    audio: Tensor
    lengths: Tensor
    targets: Tensor
    target_lengths: Tensor

    def twice(self) -> Batch:
        """Return all items, and then all of them again."""
        return Batch(
            self.audio.repeat(2, 1),
            self.lengths.repeat(2),
            self.targets.repeat(2, 1),
            self.target_lengths.repeat(2),
        )


@dataclass
class Domain:
    """The utterances of one source, by length."""

    share: float
    members: list[int] = field(default_factory=list)
    lengths: Numbers = field(default_factory=lambda: np.zeros(0, np.int64))
    order: Numbers = field(default_factory=lambda: np.zeros(0, np.int64))

    def sort(self, all_lengths: Numbers) -> None:
        """Put the members in order of length."""
        members = np.array(self.members, np.int64)
        by_length = np.argsort(all_lengths[members], kind="stable")
        self.order, self.lengths = members[by_length], all_lengths[members][by_length]

    def fits(self, room: int) -> bool:
        """Say whether a good part of the utterances is no longer than so many samples."""
        return bool(np.searchsorted(self.lengths, room) > FITTING * len(self.lengths))

    def pick(self, at_least: Numbers, at_most: Numbers, rng: Generator) -> Numbers:
        """Pick utterances between two lengths each, or NOTHING."""
        low = np.searchsorted(self.lengths, at_least)
        high = np.searchsorted(self.lengths, at_most, side="right")
        low = np.where(low < high, low, 0)
        place = low + (rng.random(len(low)) * (high - low)).astype(np.int64)
        return np.where(high > 0, self.order[np.minimum(place, len(self.order) - 1)], NOTHING)


class Pool:
    """Speech as one long row of 16-bit samples in the memory of a device."""

    def __init__(self, hours: float, shares: dict[str, float], encode: Encode, device: str) -> None:
        """Make room for hours of speech; a source has a share of batches."""
        self.audio = torch.empty(int(hours * 3600 * RATE), dtype=torch.int16, device=device)
        self.device, self.encode, self.used = device, encode, 0
        self.interpolate = interpolate
        self.offsets = self.lengths = np.zeros(0, np.int64)
        self.tokens: list[NDArray[np.int32]] = []
        self.domains = {name: Domain(share) for name, share in shares.items()}

    def add(self, shard: Shard) -> bool:
        """Take in a shard, if there is room for it."""
        size = len(shard.samples)
        if self.used + size > len(self.audio):
            return False
        self.audio[self.used : self.used + size] = torch.from_numpy(shard.samples)
        lengths = np.array(shard.lengths, np.int64)
        starts = self.used + np.cumsum(lengths) - lengths
        domain = self.domains[shard.source]
        domain.members += range(len(self.tokens), len(self.tokens) + len(lengths))
        self.offsets = np.concatenate([self.offsets, starts])
        self.lengths = np.concatenate([self.lengths, lengths])
        self.tokens += [np.array(ids, np.int32) for ids in self.encode(shard.texts)]
        self.used += size
        domain.sort(self.lengths)
        return True

    def hours(self, source: str) -> float:
        """Say how much speech of a source there is."""
        return float(self.domains[source].lengths.sum() / RATE / 3600)

    def batch(self, seconds: float, size: int, rng: Generator) -> Batch:
        """Compose a batch of utterances of at most so many seconds, alone or one after another."""
        room = int(seconds * RATE)
        speed = rng.uniform(0.84, 1.19, size)
        chosen, starts, ends = self._arrange(room, speed, rng)
        known = np.maximum(chosen, 0)
        lengths = np.where(chosen >= 0, self.lengths[known], 0)
        audio = self._gather(self.offsets[known], lengths, starts, speed, room)
        silence = np.zeros(0, np.int32)
        said = [np.concatenate([silence, *(self.tokens[one] for one in row if one >= 0)])
                for row in chosen]  # fmt: skip
        most = max(map(len, said))
        targets = np.stack([np.pad(row, (0, most - len(row))) for row in said])
        return Batch(
            audio,
            torch.from_numpy(ends),
            torch.from_numpy(targets).to(self.device, torch.int64, non_blocking=True),
            torch.tensor([len(row) for row in said]),
        )

    def _arrange(
        self, room: int, speed: NDArray[np.float64], rng: Generator
    ) -> tuple[Numbers, Numbers, Numbers]:
        """Choose up to three utterances an item, and where they begin, [batch, segments]."""
        size = len(speed)
        owner = self._owners(size, room, rng)
        chosen = np.full((size, SEGMENTS), NOTHING)
        starts = np.zeros((size, SEGMENTS), np.int64)
        ends = np.zeros(size, np.int64)
        for segment in range(SEGMENTS):
            gaps = (rng.exponential(0.15, size) * RATE).astype(np.int64)
            begin = ends + np.minimum(gaps, room // 8)
            space = ((room - begin) * speed).astype(np.int64) - 8
            least = space // 4 if segment == 0 else np.full(size, SHORTEST)
            wanted = (rng.random(size) < 0.7) | (segment == 0)  # noqa: PLR2004 - a share
            found = self._pick(owner, least, np.where(wanted, space, 0), rng)
            if segment:
                found = np.where(chosen[:, segment - 1] == NOTHING, NOTHING, found)
            else:
                spare = max(self.domains.values(), key=lambda domain: len(domain.order))
                found = np.where(found == NOTHING, spare.pick(least, space, rng), found)
            chosen[:, segment], starts[:, segment] = found, begin
            taken = np.ceil(self.lengths[np.maximum(found, 0)] / speed).astype(np.int64)
            ends = np.where(found == NOTHING, ends, begin + taken)
        tail = (rng.exponential(0.15, size) * RATE).astype(np.int64)
        return chosen, starts, np.minimum(ends + tail, room)

    def _owners(self, size: int, room: int, rng: Generator) -> NDArray[np.str_]:
        """Draw the source of each item by the shares of the sources that fit into the room."""
        filled = [name for name, domain in self.domains.items() if len(domain.order)]
        names = [name for name in filled if self.domains[name].fits(room)] or filled
        shares = np.array([self.domains[name].share for name in names])
        return rng.choice(np.array(names), size, p=shares / shares.sum())

    def _pick(
        self, owner: NDArray[np.str_], least: Numbers, most: Numbers, rng: Generator
    ) -> Numbers:
        found = np.full(len(owner), NOTHING)
        for name in np.unique(owner):
            mine = owner == name
            found[mine] = self.domains[str(name)].pick(least[mine], most[mine], rng)
        return found

    def _gather(
        self,
        offsets: Numbers,
        lengths: Numbers,
        starts: Numbers,
        speed: NDArray[np.float64],
        room: int,
    ) -> Tensor:
        """Read the utterances at their speeds, by cubic interpolation, [batch, room]."""
        offset, length, start, rate = (
            torch.from_numpy(array).to(self.device, non_blocking=True)
            for array in (offsets, lengths, starts, speed)
        )
        return self.interpolate(self.audio, offset, length, start, rate, room)


def interpolate(
    audio: Tensor, offset: Tensor, length: Tensor, start: Tensor, rate: Tensor, room: int
) -> Tensor:
    """Read up to three pieces of one row of samples into each item, by cubic interpolation.

    Args:
        audio: All samples, 16-bit.
        offset: Where each piece lies in ``audio``, [batch, segments], in samples.
        length: How long it is there.
        start: Where it begins in its item.
        rate: How fast it is read, [batch].
        room: Samples of an item.

    Returns:
        Samples between -1 and 1, [batch, room]; 0 where there is no piece.
    """
    time = torch.arange(room, device=audio.device)
    base = torch.zeros((len(rate), room), dtype=torch.int64, device=audio.device)
    place = torch.full((len(rate), room), -1.0, dtype=torch.float64, device=audio.device)
    for segment in range(offset.shape[1]):
        position = (time - start[:, segment, None]) * rate[:, None]
        within = (position >= 1) & (position < length[:, segment, None] - 3)
        base = torch.where(within, offset[:, segment, None], base)
        place = torch.where(within, position, place)
    whole = place.floor()
    between = (place - whole).float()
    index = base + whole.long()
    a, b, c, d = (
        audio[(index + step).clamp(0, len(audio) - 1)].float() / 32768 for step in (-1, 0, 1, 2)
    )
    cubic = b + 0.5 * between * (
        c - a + between * (2 * a - 5 * b + 4 * c - d + between * (3 * (b - c) + d - a))
    )
    return torch.where(place >= 0, cubic, torch.zeros_like(cubic))
