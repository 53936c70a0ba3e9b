"""Constants of a graph that was exported without its weights.

Operators that only rearrange a constant, or multiply it, become another constant, and a
normalisation behind a convolution goes into its weights, as an exporter that holds all weights in
memory does it. Here constants are loaded one by one, when they are written.
"""

from __future__ import annotations

from collections import Counter
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    import onnx
    from numpy.typing import NDArray

    Array: TypeAlias = NDArray[Any]
    Load: TypeAlias = Callable[[], Array]
    """Gives a constant, each time it is asked."""

_DEFAULT_EPSILON = 1e-5


def fold(graph: onnx.GraphProto, constants: Mapping[str, Load]) -> dict[str, Load]:
    """Remove the operators that need not run; return the constants that the others read.

    Args:
        graph: Its nodes, of which those on ``constants`` alone are removed.
        constants: By the names that the graph has for them.
    """
    folder = _Folder(graph, constants)
    return folder.run()


def _read(graph: onnx.GraphProto) -> Iterator[str]:
    """Yield what a graph reads, as often as it does: its branches read what is around them too."""
    for node in graph.node:
        yield from node.input
        for attribute in node.attribute:
            for branch in (attribute.g, *attribute.graphs):
                yield from _read(branch)
    yield from (output.name for output in graph.output)


class _Folder:
    """Folds one graph in place."""

    def __init__(self, graph: onnx.GraphProto, constants: Mapping[str, Load]) -> None:
        self._graph = graph
        self._constants = dict(constants)
        self._readers = Counter(_read(graph))
        self._convolutions: dict[str, onnx.NodeProto] = {}
        self._small: dict[str, Array] = {}

    def run(self) -> dict[str, Load]:
        """Take out the nodes that can be folded; return how each constant still read is loaded."""
        nodes = [node for node in self._graph.node if not self._is_folded(node)]
        del self._graph.node[:]
        self._graph.node.extend(nodes)
        used = set(_read(self._graph))
        return {name: load for name, load in self._constants.items() if name in used}

    def _is_folded(self, node: onnx.NodeProto) -> bool:
        """Whether a node is needed no more, for what it does was done to constants."""
        if node.op_type == "Constant":
            self._remember(node)
        elif node.op_type == "Conv":
            self._convolutions[node.output[0]] = node
        elif node.op_type == "BatchNormalization":
            return self._is_merged(node)
        elif node.op_type in _REARRANGE and self._are_constant(*node.input[:1]):
            return self._is_rearranged(node)
        return False

    def _are_constant(self, *names: str) -> bool:
        return all(name in self._constants for name in names)

    def _remember(self, node: onnx.NodeProto) -> None:
        """Keep the graph's own constants that are a number or a row: indices, factors and axes."""
        from onnx import numpy_helper  # noqa: PLC0415 - comes with the extra nemo

        value = node.attribute[0]
        if value.name == "value" and len(value.t.dims) <= 1:
            self._small[node.output[0]] = numpy_helper.to_array(value.t)

    def _is_rearranged(self, node: onnx.NodeProto) -> bool:
        others = [self._small.get(name) for name in node.input[1:]]
        if any(other is None for other in others):
            return False
        settings = {entry.name: entry for entry in node.attribute}
        load = self._constants[node.input[0]]
        rearrange = _REARRANGE[node.op_type]
        self._constants[node.output[0]] = lambda: rearrange(load(), settings, *others)
        return True

    def _is_merged(self, node: onnx.NodeProto) -> bool:
        """Multiply a convolution's weights by what normalises its output, if nothing else reads it.

        The convolution then gives the normalised output itself.
        """
        convolution = self._convolutions.get(node.input[0])
        if convolution is None or self._readers[node.input[0]] > 1:
            return False
        names = [*convolution.input[1:], *node.input[1:]]
        if not self._are_constant(*names):
            return False
        weight, *bias = (self._constants[name] for name in convolution.input[1:])
        normalisation = _Normalisation(node, self._constants)
        merged = f"{node.output[0]}/weight", f"{node.output[0]}/bias"
        self._constants[merged[0]] = partial(normalisation.weight, weight)
        self._constants[merged[1]] = partial(normalisation.bias, *bias)
        del convolution.input[1:]
        convolution.input.extend(merged)
        convolution.output[0] = node.output[0]
        return True


class _Normalisation:
    """What a ``BatchNormalization`` does to each channel: multiply, then add."""

    def __init__(self, node: onnx.NodeProto, constants: Mapping[str, Load]) -> None:
        epsilons = [entry.f for entry in node.attribute if entry.name == "epsilon"]
        self._epsilon = np.float32(epsilons[0] if epsilons else _DEFAULT_EPSILON)
        self._loads = [constants[name] for name in node.input[1:]]

    def weight(self, load: Load) -> Array:
        """Return a convolution's weight, [channels out, channels in, kernel ...], multiplied."""
        weight = load()
        return weight * self._factor().reshape(-1, *[1] * (weight.ndim - 1))

    def bias(self, load: Load | None = None) -> Array:
        """Return what is added to each channel, given the convolution's own bias."""
        _, added, mean, _ = self._loads
        before = load() if load else np.zeros_like(mean())
        return added() + (before - mean()) * self._factor()

    def _factor(self) -> Array:
        scale, _, _, variance = self._loads
        factor: Array = scale() / np.sqrt(variance() + self._epsilon)
        return factor


def _transpose(value: Array, settings: Mapping[str, Any]) -> Array:
    order = settings["perm"].ints if "perm" in settings else None
    return np.transpose(value, order)


def _gather(value: Array, settings: Mapping[str, Any], index: Array) -> Array:
    axis = settings["axis"].i if "axis" in settings else 0
    return np.take(value, index, axis)


def _multiply(value: Array, _: Mapping[str, Any], factor: Array) -> Array:
    return value * factor.astype(value.dtype)


def _unsqueeze(value: Array, settings: Mapping[str, Any], *axes: Array) -> Array:
    chosen = axes[0].tolist() if axes else settings["axes"].ints  # which opsets before 13 have
    return np.expand_dims(value, tuple(chosen))


_REARRANGE: dict[str, Callable[..., Array]] = {
    "Identity": lambda value, _: value,
    "Mul": _multiply,
    "Transpose": _transpose,
    "Gather": _gather,
    "Unsqueeze": _unsqueeze,
}
