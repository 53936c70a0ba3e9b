"""Products in integers as products in floating point, for GPUs.

ONNX Runtime computes what `quantisation` writes on the processor alone: with CUDA, every such
product would travel there and back, and no run could be recorded. TensorRT cannot read it at all.
Widened when a graph is loaded, the integers are a matrix like any other. Activations are not
rounded then.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from riva_speech.servicemaker.onnx_package import require_onnx

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    import onnx

    _Makers = Mapping[str, onnx.NodeProto]


def in_floating_point(graph: Path) -> Path:
    """Return a graph that multiplies in floating point, written beside one that does not.

    Its weights stay the integers they are, where they are.

    Raises:
        UnsupportedError: The package onnx is not installed.
    """
    if b"MatMulInteger" not in graph.read_bytes():
        return graph
    target = graph.with_suffix(".widened.onnx")
    if target.exists():
        return target
    require_onnx("to be deployed for a GPU, int8 weights need", otherwise="leave --runtime out")
    import onnx  # noqa: PLC0415 - optional

    model = onnx.load(graph, load_external_data=False)
    _widen(model.graph)
    onnx.save(model, target)
    return target


def _widen(graph: onnx.GraphProto) -> None:
    """Replace every product in integers, in place."""
    makers = {output: node for node in graph.node for output in node.output}
    products = [_Product.ending_with(node, makers) for node in graph.node]
    matrices = {one.matrix: one.widened() for one in products if one}
    computed = [
        product.computed() if product else node
        for node, product in zip(graph.node, products, strict=True)
    ]
    needed = list(_needed(computed, graph))
    del graph.node[:]
    graph.node.extend([*matrices.values(), *needed])


@dataclass(frozen=True)
class _Product:
    """A product of rows with a matrix of integers that has a scale a column."""

    rows: str
    integers: str
    scale: str
    output: str

    @property
    def matrix(self) -> str:
        """The name of the matrix as numbers of 32 bits."""
        return f"{self.integers}/{self.scale}"

    @classmethod
    def ending_with(cls, node: onnx.NodeProto, makers: _Makers) -> _Product | None:
        """Return the product that a node scales, which is its last step; None where it does not."""
        if node.op_type != "Mul":
            return None
        wide, factors = node.input
        operands = _inputs(makers, wide, "Cast", "MatMulInteger")
        rows = operands and _inputs(makers, operands[0], "DynamicQuantizeLinear")
        scales = _inputs(makers, factors, "Mul")
        if not (rows and scales):
            return None
        return cls(rows[0], operands[1], scales[1], node.output[0])

    def widened(self) -> onnx.NodeProto:
        """Return what makes the matrix, once, when the graph is loaded."""
        from onnx import helper  # noqa: PLC0415 - optional

        names = [self.integers, self.scale]
        return helper.make_node("DequantizeLinear", names, [self.matrix], axis=1)

    def computed(self) -> onnx.NodeProto:
        """Return what multiplies."""
        from onnx import helper  # noqa: PLC0415 - optional

        return helper.make_node("MatMul", [self.rows, self.matrix], [self.output])


def _inputs(makers: _Makers, name: str, *kinds: str) -> Sequence[str]:
    """Go back from a value over nodes of these kinds, by the first input of each.

    Returns:
        The inputs of the last; none where another kind of node comes between.
    """
    inputs: Sequence[str] = [name]
    for kind in kinds:
        node = makers.get(inputs[0])
        if node is None or node.op_type != kind:
            return ()
        inputs = node.input
    return inputs


def _needed(nodes: Sequence[onnx.NodeProto], graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    """Return the nodes that lead to the graph's outputs, in their order."""
    wanted = {output.name for output in graph.output}
    kept = []
    for node in reversed(nodes):
        if wanted.intersection(node.output):
            wanted.update(node.input)
            kept.append(node)
    return reversed(kept)
