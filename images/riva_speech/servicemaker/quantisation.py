"""Weights as int8: a quarter of the size, and integer arithmetic where the processor has it.

Every product with a constant matrix, and every convolution of one step, which is such a product
too, is computed in integers: weights are rounded when the pipeline is built, with one scale a
column, activations when it runs, with one scale a tensor. Depthwise and subsampling convolutions,
normalisations and the projection onto tokens stay in floating point.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from riva_speech.servicemaker.families.sharing import share_weights
from riva_speech.servicemaker.onnx_package import require_onnx
from riva_speech.sessions.onnx import OnnxSession

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    import onnx
    from numpy.typing import NDArray

    Nodes = Iterator[onnx.NodeProto]
    Array = NDArray[np.float32]

# A bit less than int8 has: processors without VNNI add pairs of products in 16 bits, which full
# int8 overflows. It also packs better, and is as accurate as far as words go.
_LARGEST = 63
_FLOAT = 1  # onnx.TensorProto.FLOAT
# Tables that are only looked up, such as positional encodings, are stored in half precision.
_MIN_TABLE_BYTES = 1 << 16


def quantise(graphs: Iterable[Path], weights: Path) -> None:
    """Rewrite graphs that share one file of weights, and the file.

    Equal matrices become equal integers, so they are still stored once.

    Raises:
        UnsupportedError: The package onnx is not installed.
        DamagedArchiveError: A graph is none.
    """
    require_onnx("int8 weights need", otherwise="leave --nn.weights out")
    import onnx  # noqa: PLC0415 - optional

    for path in (paths := list(graphs)):
        OnnxSession(path, threads=1, as_written=True)  # refuses what is no graph
        model = onnx.load(path)
        _Rewriter(model.graph).run()
        onnx.save(model, path)
    share_weights(paths, weights)


class _Rewriter:
    """Rewrites one graph in place."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self._graph = graph
        self._tensors = {tensor.name: tensor for tensor in graph.initializer}
        self._rounded: set[str] = set()
        self._kept = _leading_to_outputs(graph)

    def run(self) -> None:
        """Replace every node that can be computed in integers."""
        nodes = [new for old in self._graph.node for new in self._rewrite(old)]
        del self._graph.node[:]
        self._graph.node.extend(nodes)
        self._halve_tables()
        used = {name for node in self._graph.node for name in node.input}
        for tensor in [one for one in self._graph.initializer if one.name not in used]:
            self._graph.initializer.remove(tensor)

    def _rewrite(self, node: onnx.NodeProto) -> Nodes:
        if node.op_type == "MatMul" and self._rank(node.input[1]) == 2:  # noqa: PLR2004 - a matrix
            name = node.input[1]
            return self._product(node.input[0], name, self._array(name), node.output[0])
        if self._is_pointwise(node):
            return self._convolution(node)
        if self._is_linear(node):
            weight = np.ascontiguousarray(self._array(node.input[1]).T)
            return self._biased(node, node.input[0], weight, node.output[0])
        return iter([node])

    def _rank(self, name: str) -> int:
        """Return the rank of a constant, 0 for what is not constant."""
        return len(self._tensors[name].dims) if name in self._tensors else 0

    def _array(self, name: str) -> Array:
        from onnx import numpy_helper  # noqa: PLC0415 - optional

        array: Array = numpy_helper.to_array(self._tensors[name])
        return array

    def _is_pointwise(self, node: onnx.NodeProto) -> bool:
        """Whether a node convolves single steps, and does not make the graph's output."""
        if node.op_type != "Conv" or self._rank(node.input[1]) != 3:  # noqa: PLR2004 - one axis
            return False
        values = {entry.name: entry for entry in node.attribute}
        ones = [one for name in ("strides", "dilations") if name in values
                for one in values[name].ints]  # fmt: skip
        padding = values["pads"].ints if "pads" in values else []
        grouped = "group" in values and values["group"].i != 1
        single = self._tensors[node.input[1]].dims[2] == 1 and {*ones, 1} == {1}
        return single and not any(padding) and not grouped and node.output[0] not in self._kept

    def _is_linear(self, node: onnx.NodeProto) -> bool:
        """Whether a node applies a layer of rows, and does not make the graph's output."""
        if node.op_type != "Gemm" or self._rank(node.input[1]) != 2:  # noqa: PLR2004 - a matrix
            return False
        values = {entry.name: entry for entry in node.attribute}
        plain = all(values[name].f == 1 for name in ("alpha", "beta") if name in values)
        turned = "transA" in values and values["transA"].i
        as_stored = "transB" in values and values["transB"].i
        return bool(plain and as_stored and not turned) and node.output[0] not in self._kept

    def _convolution(self, node: onnx.NodeProto) -> Nodes:
        """Yield a product of rows instead of a convolution of columns."""
        from onnx import helper  # noqa: PLC0415 - optional

        output = node.output[0]
        rows, total = f"{output}/rows", f"{output}/total"
        weight = np.ascontiguousarray(self._array(node.input[1])[:, :, 0].T)
        yield helper.make_node("Transpose", [node.input[0]], [rows], perm=[0, 2, 1])
        yield from self._biased(node, rows, weight, total)
        yield helper.make_node("Transpose", [total], [output], perm=[0, 2, 1])

    def _biased(self, node: onnx.NodeProto, rows: str, weight: Array, output: str) -> Nodes:
        """Yield a product of rows with a node's weight, and what adds the node's bias."""
        from onnx import helper  # noqa: PLC0415 - optional

        if len(node.input) == 2:  # noqa: PLR2004 - no bias
            yield from self._product(rows, node.input[1], weight, output)
            return
        product = f"{output}/product"
        yield from self._product(rows, node.input[1], weight, product)
        yield helper.make_node("Add", [product, node.input[2]], [output])

    def _product(self, activation: str, name: str, weight: Array, output: str) -> Nodes:
        """Yield the operators that ONNX Runtime fuses into one integer product."""
        from onnx import helper  # noqa: PLC0415 - optional

        rounded, scale = self._store(name, weight)
        small, factor, zero, integers, wide, both = (
            f"{output}/{part}" for part in ("uint8", "scale", "zero", "int32", "wide", "factor")
        )
        yield helper.make_node("DynamicQuantizeLinear", [activation], [small, factor, zero])
        yield helper.make_node("MatMulInteger", [small, rounded, zero], [integers])
        yield helper.make_node("Cast", [integers], [wide], to=_FLOAT)
        yield helper.make_node("Mul", [factor, scale], [both])
        yield helper.make_node("Mul", [wide, both], [output])

    def _store(self, name: str, weight: Array) -> tuple[str, str]:
        """Keep a matrix as integers and a scale a column; return the names of both."""
        from onnx import numpy_helper  # noqa: PLC0415 - optional

        names = f"{name}/int8", f"{name}/scale"
        if name not in self._rounded:
            self._rounded.add(name)
            largest = np.abs(weight).max(axis=0)
            scale = (np.where(largest > 0, largest, 1) / _LARGEST).astype(np.float32)
            integers = np.rint(weight / scale).astype(np.int8)
            for array, stored in zip((integers, scale), names, strict=True):
                self._graph.initializer.append(numpy_helper.from_array(array, stored))
        return names

    def _halve_tables(self) -> None:
        """Store what is only sliced in half precision; it is widened when the graph is loaded."""
        from onnx import helper, numpy_helper  # noqa: PLC0415 - optional

        sliced = dict.fromkeys(
            node.input[0] for node in self._graph.node if node.op_type == "Slice"
        )
        for name in sliced:
            tensor = self._tensors.get(name)
            if tensor is None or tensor.data_type != _FLOAT:
                continue
            if len(tensor.raw_data) >= _MIN_TABLE_BYTES:
                half = numpy_helper.from_array(self._array(name).astype(np.float16), f"{name}/half")
                self._graph.initializer.append(half)
                self._graph.initializer.remove(tensor)
                self._graph.node.insert(
                    0, helper.make_node("Cast", [f"{name}/half"], [name], to=_FLOAT)
                )


def _leading_to_outputs(graph: onnx.GraphProto) -> set[str]:
    """Return the values that become outputs without more arithmetic than a softmax."""
    found = {output.name for output in graph.output}
    for node in reversed(graph.node):
        if found.intersection(node.output) and node.op_type in (
            "LogSoftmax",
            "Transpose",
            "Identity",
            "Reshape",
        ):
            found.update(node.input)
    return found
