"""Sessions on engines of TensorRT and of TensorRT for RTX."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from riva_speech.errors import OutOfResourceError, SpeechError, UnsupportedError
from riva_speech.sessions.cuda import LESS_MEMORY, Buffer, Stream
from riva_speech.sessions.engine import load_library
from riva_speech.sessions.library_log import hearing, started
from riva_speech.sessions.parts import in_parts, joined

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from numpy.typing import NDArray


_AGAIN = "deploy the model again with riva-deploy -f"
_OTHERWISE = (
    "deploy with --runtime=onnxruntime-cuda where the library does not run on this GPU, else again "
    "with riva-deploy -f"
)


class EngineSession:
    """An engine on an NVIDIA GPU.

    Runs at the same time have an execution context each, with memory of its own; as many are made
    as ever ran at once.
    """

    def __init__(self, path: Path, library: str, most: int) -> None:
        """Load an engine.

        Args:
            path: The engine.
            library: The module that built it, tensorrt or tensorrt_rtx.
            most: The largest batch that it takes; 0 is any size.

        Raises:
            UnsupportedError: The library or CUDA's binding is not installed, or the library refuses
                the file.
            OutOfResourceError: The GPU has not enough memory left.
        """
        self._trt = trt = load_library(library)
        self._most = most
        # What the runtime makes lives no longer than it does.
        self._runtime = started(trt, "Runtime")
        with hearing() as heard:
            self._engine = self._runtime.deserialize_cuda_engine(path.read_bytes())
        if self._engine is None:
            raise heard.failure(f"{library} does not load {path}", UnsupportedError, _OTHERWISE)
        self._idle: list[_Context] = []
        self._lock = threading.Lock()

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Run the model on named tensors and return its named outputs.

        A batch that is larger than the engine takes is run in parts, one after the other.

        Raises:
            SpeechError: A shape is none that the engine was built for, or the GPU failed.
            OutOfResourceError: The GPU has not enough memory left.
        """
        with self._context() as context:
            return joined([context.run(part) for part in in_parts(inputs, self._most)])

    @contextmanager
    def _context(self) -> Iterator[_Context]:
        """Give a context that no other run has; one that failed is not used again."""
        with self._lock:
            context = self._idle.pop() if self._idle else None
        context = context or _Context(self._engine, self._trt)
        try:
            yield context
        except BaseException:
            context.close()
            raise
        with self._lock:
            self._idle.append(context)


class _Context:
    """What one run at a time needs: an execution context, a stream, and memory for each tensor."""

    def __init__(self, engine: Any, trt: Any) -> None:  # noqa: ANN401 - the library has no types
        self._stream = Stream()
        with hearing() as heard:
            self._context = engine.create_execution_context()
        if self._context is None:
            raise heard.failure(
                "the library gives no execution context", OutOfResourceError, LESS_MEMORY
            )
        names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
        self._types = {name: np.dtype(trt.nptype(engine.get_tensor_dtype(name))) for name in names}
        self._outputs = [
            name for name in names if engine.get_tensor_mode(name) == trt.TensorIOMode.OUTPUT
        ]
        self._buffers = {name: Buffer(self._stream) for name in names}

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Run the engine once; errors as those of ``EngineSession.run``."""
        # Copies go on while Python does, so what is copied from is held until they are done.
        given = {
            name: np.ascontiguousarray(value, self._types[name]) for name, value in inputs.items()
        }
        for name, value in given.items():
            self._give(name, value)
        outputs = {name: self._room(name) for name in self._outputs}
        with hearing() as heard:
            is_given = self._context.execute_async_v3(self._stream.handle)
        if not is_given:
            raise heard.failure("the engine does not run", SpeechError, _AGAIN)
        for name, value in outputs.items():
            self._stream.download(self._buffers[name].address, value)
        self._stream.wait()
        return outputs

    def close(self) -> None:
        """Give the GPU's memory back."""
        self._stream.close()

    def _give(self, name: str, value: NDArray[Any]) -> None:
        """Let the engine find an input."""
        if not self._context.set_input_shape(name, value.shape):
            raise SpeechError(
                f"the engine was not built for {name} of {list(value.shape)}",
                hint="build the archive with a larger --nn.max_batch_size, or longer chunks",
            )
        address = self._buffers[name].reserve(value.nbytes)
        self._stream.upload(value, address)
        self._context.set_tensor_address(name, address)

    def _room(self, name: str) -> NDArray[Any]:
        """Let the engine find room for an output, and return where it is to be copied."""
        shape = tuple(self._context.get_tensor_shape(name))
        if min(shape, default=0) < 0:
            raise SpeechError(f"the size of the engine's {name} depends on its values")
        value = np.empty(shape, self._types[name])
        self._context.set_tensor_address(name, self._buffers[name].reserve(value.nbytes))
        return value
