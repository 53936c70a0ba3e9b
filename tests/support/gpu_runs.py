"""A stand-in for ONNX Runtime's sessions on a GPU: memory and streams are those of ``gpu/cuda``.

As there, a run that has a number is recorded by the thread that first asks for it, and what that
thread asks for later by the number is what was recorded, on the memory that was bound then.
"""

from __future__ import annotations

import ctypes
import threading
from typing import TYPE_CHECKING, Any

import numpy as np

from riva_speech.sessions.cuda import DEVICE, DeviceTensor, load_runtime
from riva_speech.sessions.onnx import OnnxSession
from riva_speech.sessions.recording import Recorder, unrecorded

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from pathlib import Path

    from numpy.typing import NDArray

_NUMBER = "gpu_graph_id"


def there(values: NDArray[Any]) -> DeviceTensor:
    """Bring an array to the GPU; the stand-in's memory is this machine's."""
    _, address = load_runtime().cudaMalloc(values.nbytes)
    tensor = DeviceTensor(address, values.shape, values.dtype)
    _write(tensor, values)
    return tensor


def here(tensor: DeviceTensor) -> NDArray[Any]:
    """Return what a tensor on the GPU holds."""
    memory = ctypes.string_at(tensor.address, tensor.nbytes)
    return np.frombuffer(memory, tensor.dtype).reshape(tensor.shape)


def _write(tensor: DeviceTensor, values: NDArray[Any]) -> None:
    whole = np.ascontiguousarray(values)
    ctypes.memmove(tensor.address, whole.ctypes.data, whole.nbytes)


class GpuSession(OnnxSession):
    """A session whose outputs, where they are kept, lie in the stand-in's memory."""

    def __init__(self, graph: Path) -> None:
        super().__init__(graph, threads=1)

    def _run_on_gpu(
        self, inputs: Mapping[str, NDArray[Any] | DeviceTensor], kept: Collection[str]
    ) -> dict[str, NDArray[Any] | DeviceTensor]:
        outputs = super()._run_on_gpu(inputs, kept)
        return {
            name: there(here(value)) if isinstance(value, DeviceTensor) else value
            for name, value in outputs.items()
        }


class RecordingSession(GpuSession):
    """A session whose runs can be recorded."""

    def __init__(self, graph: Path) -> None:
        super().__init__(graph)
        self.device = DEVICE
        self.runs = _Runs(self._session)
        self._session = self.runs
        self._recorder = Recorder(self._session)
        self._unrecorded = unrecorded()


class _Runs:
    """An ONNX Runtime session that records.

    ``replayed`` says how often what was recorded has run again; ``refuses`` lets it fail instead.
    """

    def __init__(self, session: Any) -> None:
        self._session = session
        self._recorded: dict[tuple[int, str], _Binding] = {}
        self.replayed = 0
        self.refuses = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)

    def run(self, outputs: list[str], inputs: dict[str, Any], options: Any) -> Any:
        assert options.get_run_config_entry(_NUMBER) == "-1", "it would be recorded"
        return self._session.run(outputs, inputs)

    def io_binding(self) -> Any:
        return _Binding(self._session.io_binding())

    def run_with_iobinding(self, binding: _Binding, options: Any) -> None:
        number = options.get_run_config_entry(_NUMBER)
        if number == "-1":
            self._session.run_with_iobinding(binding.plain)
            return
        if self.refuses:
            raise RuntimeError("CUDA Concat supports at most 32 inputs during CUDA Graph capture")
        key = (threading.get_ident(), number)
        self.replayed += key in self._recorded
        recorded = self._recorded.setdefault(key, binding)
        values = {name: here(tensor) for name, tensor in recorded.inputs.items()}
        outputs = self._session.run(list(recorded.outputs), values)
        for tensor, value in zip(recorded.outputs.values(), outputs, strict=True):
            assert value.shape == tensor.shape
            _write(tensor, value)


class _Binding:
    """What a run reads and writes: for one that is recorded, places on the GPU alone."""

    def __init__(self, plain: Any) -> None:
        self.plain = plain
        self.inputs: dict[str, DeviceTensor] = {}
        self.outputs: dict[str, DeviceTensor] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self.plain, name)

    def bind_input(self, name: str, device: str, number: int, *place: Any) -> None:
        self.inputs[name] = _tensor(device, number, *place)
        self.plain.bind_input(name, "cpu", 0, *place)

    def bind_output(self, name: str, device: str, number: int = 0, *place: Any) -> None:
        if place:
            self.outputs[name] = _tensor(device, number, *place)
        else:
            self.plain.bind_output(name, "cpu")


def _tensor(
    device: str, number: int, dtype: Any, shape: tuple[int, ...], address: int
) -> DeviceTensor:
    assert (device, number) == (DEVICE, 0)
    return DeviceTensor(address, shape, np.dtype(dtype))
