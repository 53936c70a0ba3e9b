"""One file of weights that all graphs of a model share."""

from __future__ import annotations

import hashlib
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    import onnx
    from numpy.typing import NDArray

# Smaller tensors stay in the graphs: ONNX Runtime reads shapes from them while it loads.
_MIN_SHARED_BYTES = 1024
# Tensors begin on pages, so that the file can be mapped into memory.
_PAGE_BYTES = 4096


class SharedWeights:
    """A file of tensors; those with the same content are stored once.

    So a second graph of the same model costs little more than its nodes.
    """

    def __init__(self, file: IO[bytes], name: str) -> None:
        """Write to ``file``, which graphs know by ``name``."""
        self._file = file
        self._name = name
        self._stored: dict[bytes, int] = {}

    def move_in(self, graph: onnx.GraphProto) -> None:
        """Move the large tensors that a graph holds into the file."""
        _lift_constants(graph)
        for tensor in graph.initializer:
            if len(tensor.raw_data) >= _MIN_SHARED_BYTES:
                self._refer(tensor, memoryview(tensor.raw_data))

    def tensor(self, name: str, array: NDArray[Any]) -> onnx.TensorProto:
        """Return a graph's tensor of an array, which is in the file if it is large."""
        from onnx import TensorProto, helper, numpy_helper  # noqa: PLC0415 - of the extra nemo

        if array.nbytes < _MIN_SHARED_BYTES:
            return numpy_helper.from_array(array, name)
        kind = helper.np_dtype_to_tensor_dtype(array.dtype)
        # Only of a tensor that has content, if none, may the content lie elsewhere.
        tensor = TensorProto(name=name, data_type=kind, dims=array.shape, raw_data=b"")
        self._refer(tensor, np.asarray(array, order="C").reshape(-1).view(np.uint8).data)
        return tensor

    def _refer(self, tensor: onnx.TensorProto, data: memoryview) -> None:
        """Let a tensor refer to its content in the file."""
        from onnx.external_data_helper import set_external_data  # noqa: PLC0415 - as above

        length = len(data)
        set_external_data(tensor, self._name, offset=self._store(data), length=length)
        tensor.ClearField("raw_data")
        tensor.data_location = tensor.EXTERNAL

    def _store(self, data: memoryview) -> int:
        """Return where content begins in the file, into which it is written once."""
        digest = hashlib.sha256(data).digest()
        if digest not in self._stored:
            self._file.write(bytes(-self._file.tell() % _PAGE_BYTES))
            self._stored[digest] = self._file.tell()
            self._file.write(data)
        return self._stored[digest]


class Destination(NamedTuple):
    """What graphs are written for: the file of their weights, and the ONNX opset."""

    weights: SharedWeights
    onnx_opset: int


@contextmanager
def shared_weights(path: Path) -> Iterator[SharedWeights]:
    """Write a new file of weights, beside the graphs that will refer to it."""
    with path.open("wb") as file:
        yield SharedWeights(file, path.name)


def share_weights(graphs: Iterable[Path], weights: Path) -> None:
    """Move the large tensors of all graphs into one file that each of them refers to."""
    import onnx  # noqa: PLC0415 - comes with the extra nemo

    with shared_weights(weights) as shared:
        for path in graphs:
            model = onnx.load(path)
            shared.move_in(model.graph)
            onnx.save(model, path)


def _lift_constants(graph: onnx.GraphProto) -> None:
    """Turn large ``Constant`` nodes, such as positional encodings, into initializers.

    Only those can lie outside the graph.
    """
    for node in [node for node in graph.node if node.op_type == "Constant"]:
        tensor = node.attribute[0].t
        if len(tensor.raw_data) >= _MIN_SHARED_BYTES:
            tensor.name = node.output[0]
            graph.initializer.append(tensor)
            graph.node.remove(node)
