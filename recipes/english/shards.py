"""Speech in pieces: one array of samples and one list of what is said where.

A shard is ready once its list exists: it is written last, so that a training that runs can take
in what a synthesis that runs has finished.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from numpy.typing import NDArray

    Samples: TypeAlias = NDArray[np.int16]


@dataclass(frozen=True)
class Shard:
    """Utterances of one source, end to end, as 16-bit samples at 16 kHz."""

    source: str
    samples: Samples
    lengths: list[int]
    texts: list[str]


def write_shard(folder: Path, name: str, source: str, said: Iterable[tuple[str, Samples]]) -> float:
    """Write utterances as a shard; return the hours in it."""
    texts, pieces = zip(*said, strict=True)
    lengths = [len(piece) for piece in pieces]
    folder.mkdir(parents=True, exist_ok=True)
    np.save(folder / f"{name}.npy", np.concatenate(pieces))
    table = {"source": source, "lengths": lengths, "texts": texts}
    draft = folder / f"{name}.part"
    draft.write_text(json.dumps(table), encoding="utf-8")
    draft.rename(folder / f"{name}.json")
    return sum(lengths) / 16_000 / 3600


def read_shard(table: Path) -> Shard:
    """Read a shard by the path of its list."""
    row = json.loads(table.read_text(encoding="utf-8"))
    samples = np.load(table.with_suffix(".npy"))
    return Shard(row["source"], samples, row["lengths"], row["texts"])


def to_int16(samples: NDArray[np.float32]) -> Samples:
    """Round samples between -1 and 1."""
    return np.asarray(np.clip(samples, -1, 1) * 32767, np.int16)
