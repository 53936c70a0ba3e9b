"""A graph's weights and nodes, and the order in which these are run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import torch
from onnx import helper, numpy_helper

from recipes.english.onnx_graph.elements import ELEMENTS
from recipes.english.onnx_graph.fusion import fuse
from recipes.english.onnx_graph.layers import LAYERS
from recipes.english.onnx_graph.node import SMALL, Node, Tensor

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    Values = dict[str, Any]

OPERATORS = {**ELEMENTS, **LAYERS}


class Graph:
    """An ONNX graph whose values can be given and asked for by name."""

    def __init__(self, path: Path, device: str, halved: tuple[str, ...] = ()) -> None:
        """Load the graph's weights onto a device.

        Convolutions whose outputs' names have one of ``halved`` in them compute in float16.
        """
        graph = onnx.load(str(path)).graph
        self.device, self.halved = torch.device(device), halved
        self.constants: Values = {
            one.name: self._constant(numpy_helper.to_array(one)) for one in graph.initializer
        }
        self.nodes: list[Node] = []
        for one in graph.node:
            attributes = {each.name: helper.get_attribute_value(each) for each in one.attribute}
            if one.op_type == "Constant":
                array = numpy_helper.to_array(attributes["value"])
                self.constants[one.output[0]] = self._constant(array)
            else:
                self.nodes.append(
                    Node(one.op_type, tuple(one.input), tuple(one.output), attributes)
                )
        self.made: dict[Any, Any] = {}
        self._fold()

    def _constant(self, array: Any) -> Tensor:
        tensor = torch.from_numpy(np.array(array, order="C"))
        if tensor.dtype.is_floating_point:
            return tensor.to(self.device, torch.float32)
        return tensor.to(self.device) if tensor.numel() > SMALL else tensor

    def _fold(self) -> None:
        """Work out once what does not depend on the inputs; quantisation scales are all 1."""
        left = []
        for node in self.nodes:
            if node.kind == "DynamicQuantizeLinear":
                self.constants[node.outputs[1]] = torch.ones((), device=self.device)
                self.constants[node.outputs[2]] = None
            if node.kind not in OPERATORS:
                left.append(node)
            elif all(name in self.constants or not name for name in node.inputs):
                self._run_node(node, self.constants)
            else:
                left.append(node)
        self.nodes = fuse(left)

    def plan(self, given: Iterable[str], wanted: Iterable[str]) -> list[tuple[Node, list[str]]]:
        """Return the operations between two sets of values, and what can be dropped after each."""
        known, needed, nodes = set(given), set(wanted), []
        for node in reversed(self.nodes):
            if needed.intersection(node.outputs) and not known.intersection(node.outputs):
                nodes.append(node)
                needed.update(name for name in node.inputs if name not in known)
        nodes.reverse()
        last = {name: place for place, node in enumerate(nodes) for name in node.inputs}
        kept = set(wanted) | self.constants.keys() | {""}
        drops: list[list[str]] = [[] for _ in nodes]
        for name, place in last.items():
            if name not in kept:
                drops[place].append(name)
        return list(zip(nodes, drops, strict=True))

    def run(self, given: Values, wanted: list[str]) -> list[Tensor]:
        """Work out values from other values."""
        key = (tuple(given), tuple(wanted))
        if key not in self.made:
            self.made[key] = self.plan(given, wanted)
        values = {**self.constants, **given}
        with torch.inference_mode():
            for node, drops in self.made[key]:
                self._run_node(node, values)
                for name in drops:
                    values.pop(name, None)
        return [values[name] for name in wanted]

    def _run_node(self, node: Node, values: Values) -> None:
        inputs = [values[name] if name else None for name in node.inputs]
        results = OPERATORS[node.kind](self, node, inputs)
        if not isinstance(results, tuple):
            results = (results,)
        values.update(zip(node.outputs, results, strict=False))

    def precision(self, node: Node) -> torch.dtype:
        """Return what a convolution computes in."""
        half = any(name in node.outputs[0] for name in self.halved)
        return torch.float16 if half else torch.float32

    def together(self, *tensors: Tensor) -> list[Tensor]:
        """Bring tensors to one device, if they are not on one."""
        if len({tensor.device for tensor in tensors}) > 1:
            return [tensor.to(self.device) for tensor in tensors]
        return list(tensors)
