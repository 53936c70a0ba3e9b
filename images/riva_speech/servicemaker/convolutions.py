"""Convolutions as matrix products and sums, for GPUs.

cuDNN plans a convolution for one shape of its input, and ONNX Runtime keeps one plan a node: each
run of another number of streams, or another length, makes all of them anew, which takes from
milliseconds to seconds. Products need no plan. What a convolution slides over is sliced instead,
once for each place of its kernel.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import onnx

# The largest index: to the end of an axis.
_END = np.iinfo(np.int64).max


def replace_convolutions(graph: onnx.GraphProto) -> None:
    """Let a graph compute the same with products, in place; its weights stay where they are."""
    _Rewriter(graph).run()


@dataclass(frozen=True)
class _Convolution:
    """A convolution over some axes, each described by an entry of these.

    ``groups`` is 1, or the number of channels where each has a kernel of its own.
    """

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    before: tuple[int, ...]
    behind: tuple[int, ...]
    groups: int

    @classmethod
    def of(cls, node: onnx.NodeProto, weight: Sequence[int]) -> _Convolution | None:
        """Read a node whose weights, [out, in a group, *kernel], have that shape.

        None stands for one of another kind: some groups of several channels, or padding that
        follows from the input's size.
        """
        values = {entry.name: entry for entry in node.attribute}
        kernel = tuple(weight[2:])
        axes = len(kernel)
        pads = tuple(values["pads"].ints) if "pads" in values else (0,) * (2 * axes)
        groups = values["group"].i if "group" in values else 1
        automatic = values["auto_pad"].s if "auto_pad" in values else b"NOTSET"
        if automatic != b"NOTSET" or (groups != 1 and (weight[1] != 1 or weight[0] != groups)):
            return None

        def per_axis(name: str) -> tuple[int, ...]:
            """Return an attribute with a number for each axis, which is 1 where it is not set."""
            return tuple(values[name].ints) if name in values else (1,) * axes

        strides, dilations = per_axis("strides"), per_axis("dilations")
        return cls(kernel, strides, dilations, pads[:axes], pads[axes:], groups)

    @property
    def places(self) -> Iterator[tuple[int, ...]]:
        """The places of the kernel, in the order of its weights."""
        return itertools.product(*map(range, self.kernel))

    def slice_at(self, place: tuple[int, ...]) -> tuple[list[int], list[int]]:
        """Return where, along each axis of the padded input, one place begins and ends to slide.

        An end is counted from that of the axis.
        """
        starts = [at * dilation for at, dilation in zip(place, self.dilations, strict=True)]
        lefts = [
            (size - 1 - at) * dilation
            for at, size, dilation in zip(place, self.kernel, self.dilations, strict=True)
        ]
        return starts, [-left if left else _END for left in lefts]


class _Rewriter:
    """Rewrites one graph in place."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self._graph = graph
        self._shapes = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
        self._nodes: list[onnx.NodeProto] = []
        self._prefix = ""

    def run(self) -> None:
        """Replace every convolution whose weights are the graph's own."""
        for node in list(self._graph.node):
            convolution = None
            if node.op_type == "Conv" and node.input[1] in self._shapes:
                convolution = _Convolution.of(node, self._shapes[node.input[1]])
            if convolution is None:
                self._nodes.append(node)
                continue
            self._prefix = f"{node.output[0]}/"
            self._convolve(node, convolution)
            self._nodes[-1].output[0] = node.output[0]
        del self._graph.node[:]
        self._graph.node.extend(self._nodes)

    def _convolve(self, node: onnx.NodeProto, convolution: _Convolution) -> None:
        """Add nodes of which the last one gives a convolution's output."""
        signal = self._padded(node.input[0], convolution)
        bias = node.input[2] if len(node.input) > 2 else ""  # noqa: PLR2004 - signal, weights, bias
        if convolution.groups == 1:
            self._products(signal, node.input[1], bias, convolution)
        else:
            self._sums(signal, node.input[1], bias, convolution)

    def _padded(self, signal: str, convolution: _Convolution) -> str:
        if not any((*convolution.before, *convolution.behind)):
            return signal
        pads = [0, 0, *convolution.before, 0, 0, *convolution.behind]
        return self._add("Pad", signal, self._numbers(pads))

    def _products(self, signal: str, weight: str, bias: str, convolution: _Convolution) -> None:
        """Convolve over all channels: what all places see, [batch, *axes, seen], by a matrix."""
        axes = len(convolution.kernel)
        seen = self._slices(signal, convolution, first_axis=2)
        joined = seen[0] if len(seen) == 1 else self._add("Concat", *seen, axis=1)
        rows = self._add("Transpose", joined, perm=[0, *range(2, 2 + axes), 1])
        by_place = self._add("Transpose", weight, perm=[*range(2, 2 + axes), 1, 0])
        outputs = self._shapes[weight][0]
        matrix = self._add("Reshape", by_place, self._numbers([-1, outputs]))
        product = self._add("MatMul", rows, matrix)
        if bias:
            product = self._add("Add", product, bias)
        self._add("Transpose", product, perm=[0, 1 + axes, *range(1, 1 + axes)])

    def _sums(self, signal: str, weight: str, bias: str, convolution: _Convolution) -> None:
        """Convolve each channel by itself: what all places see, [batch, channels, seen, *axes]."""
        channels, axes = convolution.groups, len(convolution.kernel)
        apart = self._add("Unsqueeze", signal, self._numbers([2]))
        seen = self._slices(apart, convolution, first_axis=3)
        joined = seen[0] if len(seen) == 1 else self._add("Concat", *seen, axis=2)
        shape = self._numbers([channels, -1, *(1,) * axes])
        weighted = self._add("Mul", joined, self._add("Reshape", weight, shape))
        total = self._add("ReduceSum", weighted, self._numbers([2]), keepdims=0)
        if bias:
            column = self._add("Reshape", bias, self._numbers([channels, *(1,) * axes]))
            self._add("Add", total, column)

    def _slices(self, signal: str, convolution: _Convolution, first_axis: int) -> list[str]:
        """Return what each place of the kernel sees of a padded signal as it slides."""
        if set(convolution.kernel) == set(convolution.strides) == {1}:
            return [signal]
        axes = self._numbers([first_axis + axis for axis in range(len(convolution.kernel))])
        steps = self._numbers(convolution.strides)
        return [
            self._add(
                "Slice", signal, *map(self._numbers, convolution.slice_at(place)), axes, steps
            )
            for place in convolution.places
        ]

    def _add(self, kind: str, *inputs: str, **attributes: Any) -> str:  # noqa: ANN401 - the schema's own
        """Add a node; return the name of what it gives."""
        from onnx import helper  # noqa: PLC0415 - optional

        name = f"{self._prefix}{len(self._nodes)}"
        self._nodes.append(helper.make_node(kind, inputs, [name], name=name, **attributes))
        return name

    def _numbers(self, values: Sequence[int]) -> str:
        """Return the name of a constant row of numbers."""
        from onnx import numpy_helper  # noqa: PLC0415 - optional

        name = f"{self._prefix}numbers-{len(self._graph.initializer)}"
        tensor = numpy_helper.from_array(np.array(values, np.int64), name)
        self._graph.initializer.append(tensor)
        return name
