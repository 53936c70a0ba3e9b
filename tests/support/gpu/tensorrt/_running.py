"""The half of the stand-in that runs engines."""

from __future__ import annotations

import ctypes
import json
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime
from cuda.bindings import runtime as cuda

from tensorrt._common import (
    MAGIC,
    DataType,
    ILogger,
    TensorIOMode,
    capability,
    check_start,
    has,
    nptype,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Shape = tuple[int, ...]

_REFUSAL = (
    "IRuntime::deserializeCudaEngine: Error Code 6: API Usage Error (The engine cannot run on this "
    "GPU, which has compute capability 9.0. Supported compute capabilities: None.)"
)
_TYPES = {
    "tensor(float)": DataType.FLOAT,
    "tensor(int64)": DataType.INT64,
    "tensor(int32)": DataType.INT32,
    "tensor(bool)": DataType.BOOL,
}


class Runtime:
    def __init__(self, logger: ILogger) -> None:
        check_start(logger)
        self._logger = logger

    def deserialize_cuda_engine(self, serialized_engine: bytes) -> ICudaEngine | None:
        if has("refuse"):
            self._logger.log(ILogger.Severity.ERROR, _REFUSAL)
            return None
        head, _, graph = serialized_engine.partition(b"\n")
        if MAGIC.encode() not in head:
            self._logger.log(ILogger.Severity.ERROR, "Error Code 1: Serialization (magic tag)")
            return None
        engine = ICudaEngine(json.loads(head), graph, self._logger)
        if engine.head["capability"] not in {"CURRENT", f"SM{capability().replace('.', '')}"}:
            self._logger.log(ILogger.Severity.ERROR, _REFUSAL)
            return None
        return engine


class ICudaEngine:
    def __init__(self, head: dict[str, Any], graph: bytes, logger: ILogger) -> None:
        options = onnxruntime.SessionOptions()
        # ONNX Runtime would round what is multiplied with a matrix that was rounded.
        options.add_session_config_entry("session.disable_quant_qdq", "1")
        self.session = onnxruntime.InferenceSession(
            graph, options, providers=["CPUExecutionProvider"]
        )
        self.head, self.logger = head, logger
        inputs, outputs = self.session.get_inputs(), self.session.get_outputs()
        self.inputs, self.outputs = [one.name for one in inputs], [one.name for one in outputs]
        self._types = {one.name: _TYPES[one.type] for one in (*inputs, *outputs)}

    @property
    def num_io_tensors(self) -> int:
        return len(self._types)

    def get_tensor_name(self, index: int) -> str:
        return list(self._types)[index]

    def get_tensor_dtype(self, name: str) -> DataType:
        return self._types[name]

    def get_tensor_mode(self, name: str) -> TensorIOMode:
        return TensorIOMode.INPUT if name in self.inputs else TensorIOMode.OUTPUT

    def create_execution_context(self) -> IExecutionContext | None:
        if has("context"):
            said = "IExecutionContext: Error Code 2: OutOfMemory (Requested size was 1 bytes.)"
            self.logger.log(ILogger.Severity.ERROR, said)
            return None
        return IExecutionContext(self)

    def compute(self, given: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        values = self.session.run(self.outputs, given)
        return {
            name: self._rounded(value) if value.dtype == np.float32 else value
            for name, value in zip(self.outputs, values, strict=True)
        }

    def _rounded(self, value: NDArray[Any]) -> NDArray[Any]:
        """Return what the engine computes; with TF32 it has as many bits as half precision."""
        kept = value.astype(np.float16).astype(np.float32) if self.head["tf32"] else value
        return kept * np.float32(self.head["factor"])


class IExecutionContext:
    def __init__(self, engine: ICudaEngine) -> None:
        self._engine = engine
        self._shapes: dict[str, Shape] = {}
        self._addresses: dict[str, int] = {}
        self._known: dict[tuple[Shape, ...], dict[str, Shape]] = {}

    def set_input_shape(self, name: str, shape: Sequence[int]) -> bool:
        least, _, most = self._engine.head["profile"][name]
        fits = len(shape) == len(least) and all(
            low <= one <= high for low, one, high in zip(least, shape, most, strict=True)
        )
        if not fits:
            said = f"setInputShape: Error Code 3: API Usage Error ({name} {shape} {least} {most})"
            self._engine.logger.log(ILogger.Severity.ERROR, said)
            return False
        self._shapes[name] = tuple(shape)
        return True

    def get_tensor_shape(self, name: str) -> Shape:
        if name in self._shapes:
            return self._shapes[name]
        if len(self._shapes) < len(self._engine.inputs):
            return (-1,)
        key = tuple(self._shapes[one] for one in self._engine.inputs)
        if key not in self._known:
            # The library derives them from the inputs' shapes; what the values are is no matter.
            blank = {one: np.zeros(self._shapes[one], self._type(one)) for one in self._shapes}
            found = self._engine.compute(blank)
            self._known[key] = {one: value.shape for one, value in found.items()}
        return self._known[key][name]

    def set_tensor_address(self, name: str, memory: int) -> bool:
        self._addresses[name] = memory
        return True

    def execute_async_v3(self, stream_handle: int) -> bool:
        places = {
            name: (self._addresses[name], self.get_tensor_shape(name))
            for name in (*self._engine.inputs, *self._engine.outputs)
        }
        fits = all(
            cuda.holds(address, int(np.prod(shape)) * self._type(name).itemsize)
            for name, (address, shape) in places.items()
        )
        if has("execute") or not fits:
            said = "IExecutionContext::enqueueV3: Error Code 1: Cuda Runtime (invalid argument)"
            self._engine.logger.log(ILogger.Severity.ERROR, said)
            return False
        cuda.enqueue(stream_handle, lambda: self._compute(places))
        return True

    def _compute(self, places: dict[str, tuple[int, Shape]]) -> None:
        given = {name: self._array(name, *places[name]) for name in self._engine.inputs}
        for name, value in self._engine.compute(given).items():
            self._array(name, *places[name])[...] = value

    def _array(self, name: str, address: int, shape: Shape) -> NDArray[Any]:
        size = int(np.prod(shape)) * self._type(name).itemsize
        memory = memoryview((ctypes.c_char * size).from_address(address)).cast("B")
        return np.frombuffer(memory, self._type(name)).reshape(shape)

    def _type(self, name: str) -> np.dtype[Any]:
        return np.dtype(nptype(self._engine.get_tensor_dtype(name)))
