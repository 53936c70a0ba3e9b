"""One operation of a graph, and what runs it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from recipes.english.onnx_graph.graph import Graph

T = TypeVar("T")
Tensor: TypeAlias = Any  # torch has no types here
Operator: TypeAlias = "Callable[[Graph, Node, list[Tensor]], Tensor | tuple[Tensor, ...]]"
"""Takes the graph, the node and its inputs, None where one is left out; returns its outputs."""

SMALL = 4096
"""Integers up to this number of elements stay on the CPU."""


@dataclass(frozen=True)
class Node:
    """One operation of the graph, with the names of its inputs (empty for none) and outputs."""

    kind: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: dict[str, Any]

    def axis(self, default: int) -> int:
        """Return the axis that it works along."""
        return int(self.attributes.get("axis", default))


def given(inputs: Sequence[T], place: int) -> T | None:
    """Return the input at a place; None where the last ones, that one among them, are left out."""
    return inputs[place] if place < len(inputs) else None
