"""Batches that are larger than a model takes, in parts that it does take."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    Tensors: TypeAlias = Mapping[str, NDArray[Any]]


def in_parts(inputs: Tensors, most: int) -> list[Tensors]:
    """Cut tensors, [batch, ...], into batches of at most ``most``; 0 is any size."""
    total = len(next(iter(inputs.values())))
    if not most or total <= most:
        return [inputs]
    cuts = [*range(0, total, most), total]
    return [
        {name: values[begin:end] for name, values in inputs.items()}
        for begin, end in itertools.pairwise(cuts)
    ]


def joined(parts: Sequence[Tensors]) -> dict[str, NDArray[Any]]:
    """Return the outputs of all parts as those of one run."""
    if len(parts) == 1:
        return dict(parts[0])
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
