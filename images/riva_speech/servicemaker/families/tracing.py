"""Writing what torch's tracer sees of a module, without its weights, and adding those afterwards.

The tracer holds each weight several times while it writes a graph with them. Here each is read,
rearranged, written to the file that graphs share, and forgotten.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import onnx
import torch
from torch import nn

from riva_speech.servicemaker.families.folding import fold

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from riva_speech.servicemaker.families.folding import Load
    from riva_speech.servicemaker.families.sharing import Destination, SharedWeights


class Interface(NamedTuple):
    """How a graph is called: the names of its tensors, and of their dimensions of any size."""

    inputs: list[str]
    outputs: list[str]
    dynamic_axes: dict[str, dict[int, str]]


class ForExport(nn.Module):
    """A module that computes what a part of a model computes when it is exported."""

    def __init__(self, part: nn.Module, compute: Callable[..., Any]) -> None:
        """Let a method of ``part``, whose weights these are, do the computing."""
        super().__init__()
        self.part = part
        self.compute = compute

    def forward(self, *inputs: Any) -> Any:
        """Return the part's outputs."""
        return self.compute(*inputs)


class _Bare(nn.Module):
    """A module that is given its weights each time, as inputs behind its own.

    What is an input, the tracer computes nothing of: it would keep each weight once more.
    """

    def __init__(self, module: nn.Module, names: list[str]) -> None:
        """Let a module compute with weights that are given in the order of ``names``."""
        super().__init__()
        self._compute = module.forward  # the module itself would bring its weights along
        self._places = [_place(module, name) for name in names]

    def forward(self, *values: Any) -> Any:
        """Return the module's outputs for its inputs and its weights."""
        count = len(values) - len(self._places)
        own = [table[name] for table, name in self._places]
        self._put(values[count:])
        try:
            return self._compute(*values[:count])
        finally:
            self._put(own)

    def _put(self, values: Sequence[Any]) -> None:
        for (table, name), value in zip(self._places, values, strict=True):
            table[name] = value


def _place(module: nn.Module, path: str) -> tuple[dict[str, Any], str]:
    """Return where a module keeps a weight: the table of the module that owns it, and its name."""
    owner, _, name = path.rpartition(".")
    found = module.get_submodule(owner)
    # By assignment to the attribute, a module takes nothing but parameters.
    tables = found._parameters, found._buffers  # noqa: SLF001 - as above
    return next(table for table in tables if name in table), name


def write_graph(
    module: nn.Module,
    example: tuple[torch.Tensor, ...],
    path: Path,
    interface: Interface,
    to: Destination,
) -> None:
    """Trace a module on example inputs, and write it as a graph and weights."""
    weights = distinct_weights(module.eval())
    names = list(weights)
    with torch.inference_mode():
        torch.onnx.export(
            _Bare(module, names),
            (*example, *map(_blank, weights.values())),
            path,
            input_names=[*interface.inputs, *names],
            output_names=interface.outputs,
            dynamic_axes=interface.dynamic_axes,
            opset_version=to.onnx_opset,
            do_constant_folding=False,  # none is constant
            dynamo=False,  # as NeMo's exporter
        )
    _complete(path, weights, to.weights)


def distinct_weights(module: nn.Module) -> dict[str, torch.Tensor]:
    """Return a module's weights, each by one of its names.

    What stands for a layer holds parts of it once more, and each name would be one more blank.
    """
    found: dict[tuple[int, str], tuple[str, torch.Tensor]] = {}
    for path, weight in module.state_dict().items():
        table, name = _place(module, path)
        found.setdefault((id(table), name), (path, weight))
    return dict(found.values())


def _blank(weight: torch.Tensor) -> torch.Tensor:
    """Return a tensor like a weight that takes no memory: of zeros which nobody writes.

    Of what is an input the tracer keeps no value, and to compute with a checkpoint's own would
    bring all of them into memory at once.
    """
    if weight.device.type != "cpu":
        return weight
    return torch.from_numpy(np.zeros(weight.shape, weight.new_empty(0).numpy().dtype))


def _complete(path: Path, parameters: Mapping[str, torch.Tensor], weights: SharedWeights) -> None:
    """Give a graph that was written without them its weights."""
    model = _without_tables(path, weights)
    graph = model.graph
    constants = {name: _loader(tensor) for name, tensor in parameters.items()}
    inputs = [value for value in graph.input if value.name not in constants]
    del graph.input[:]
    graph.input.extend(inputs)
    _keep_length(graph)
    used = fold(graph, constants)
    graph.initializer.extend(weights.tensor(name, load()) for name, load in used.items())
    onnx.save(model, path)


def _without_tables(path: Path, weights: SharedWeights) -> onnx.ModelProto:
    """Read a graph, and move the large constants that the tracer left in it to the weights.

    A message keeps the memory of what was taken out of it, so a new one is made of the rest.
    """
    model = onnx.load(path)
    weights.move_in(model.graph)
    rest = model.SerializeToString()
    return onnx.ModelProto.FromString(rest)


def _loader(tensor: torch.Tensor) -> Load:
    """Return what gives a tensor as an array; one that is mapped to a file is read only then."""
    return lambda: tensor.cpu().numpy()


def _keep_length(graph: onnx.GraphProto) -> None:
    """Give a graph back the input ``length``, which the exporter drops where nothing reads it.

    So all families are called the same way.
    """
    names = {value.name for value in graph.input}
    if "audio_signal" not in names or "length" in names:
        return
    batch = graph.input[0].type.tensor_type.shape.dim[0].dim_param
    length = onnx.helper.make_tensor_value_info("length", onnx.TensorProto.INT64, [batch])
    graph.input.append(length)
