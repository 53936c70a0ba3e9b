"""Groups of operations that an exporter took apart, found again and run as one.

Kokoro's vocoder is bound by memory: of its time on a GPU, most goes into reading and writing one
tensor for each little operation of a normalisation or an activation. The groups are put in place
of their last operation; what only they needed is left out when a `Graph` plans what to run.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from recipes.english.onnx_graph.node import Node, given

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    Producers = Mapping[str, Node]
    Match = Callable[[Node, Producers], Node | None]


def fuse(nodes: list[Node]) -> list[Node]:
    """Put known groups of operations in place of their last operations."""
    for match in (_scaled_convolution, _instance_norm, _adaptive_snake):
        producers = {name: node for node in nodes for name in node.outputs}
        nodes = [match(node, producers) or node for node in nodes]
    return nodes


def _chain(last: Node, producers: Producers, *steps: tuple[str, int]) -> list[Node] | None:
    """Follow inputs backwards, each step by the kind of the node and which input of the last."""
    found = [last]
    for kind, place in steps:
        node = producers.get(found[-1].inputs[place])
        if node is None or node.kind != kind:
            return None
        found.append(node)
    return found


def _scaled_convolution(node: Node, producers: Producers) -> Node | None:
    """Match a quantised convolution with its bias and the scale of both."""
    if node.kind != "Mul":
        return None
    biased = _chain(node, producers, ("Cast", 0), ("Add", 0), ("ConvInteger", 0))
    plain = _chain(node, producers, ("Cast", 0), ("ConvInteger", 0))
    group = biased or plain
    if group is None:
        return None
    convolution = group[-1]
    bias = biased[2].inputs[1] if biased else ""
    zero = given(convolution.inputs, 3) or ""
    inputs = (convolution.inputs[0], convolution.inputs[1], zero, bias, node.inputs[1])
    return Node("ScaledConvolution", inputs, node.outputs, convolution.attributes)


def _instance_norm(node: Node, producers: Producers) -> Node | None:
    """Match (x - mean) / sqrt(mean of squares of x - mean + epsilon)."""
    if node.kind != "Div":
        return None
    group = _chain(node, producers, ("Sqrt", 1), ("Add", 0), ("ReduceMean", 0), ("Mul", 0),
                   ("Sub", 0), ("ReduceMean", 1))  # fmt: skip
    if group is None or node.inputs[0] != group[5].outputs[0]:
        return None
    moved, mean = group[5], group[6]
    if mean.inputs[0] != moved.inputs[0] or set(group[4].inputs) != {moved.outputs[0]}:
        return None
    return Node("InstanceNorm", (moved.inputs[0], group[2].inputs[1]), node.outputs, {})


def _adaptive_snake(node: Node, producers: Producers) -> Node | None:
    """Match y + sin(a y)^2 / a, where y is a normalised input times a factor plus an offset."""
    if node.kind != "Add":
        return None
    group = _chain(node, producers, ("Mul", 1), ("Pow", 1), ("Sin", 0), ("Mul", 0), ("Add", 1),
                   ("Mul", 0), ("InstanceNorm", 1))  # fmt: skip
    if group is None or node.inputs[0] != group[5].outputs[0]:
        return None
    reciprocal, alpha, offset = group[1].inputs[0], group[4].inputs[0], group[5].inputs[1]
    factor, norm = group[6].inputs[0], group[7].outputs[0]
    return Node("AdaptiveSnake", (norm, factor, offset, alpha, reciprocal), node.outputs, {})
