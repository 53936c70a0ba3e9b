"""Memory and streams of a GPU, by NVIDIA's own binding of the CUDA runtime."""

from __future__ import annotations

import math
import weakref
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from riva_speech.errors import OutOfResourceError, SpeechError, UnsupportedError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

# How ONNX Runtime calls what all of this is about.
DEVICE = "cuda"
LESS_MEMORY = "serve fewer models, or smaller batches"

# A tensor of no bytes needs an address, too.
_LEAST_BYTES = 256


def load_runtime() -> Any:  # noqa: ANN401 - the binding has no types
    """Import the binding of the CUDA runtime.

    Raises:
        UnsupportedError: It is not installed, or does not load.
    """
    try:
        from cuda.bindings import runtime  # noqa: PLC0415 - optional
    except (ImportError, OSError) as error:
        raise UnsupportedError(
            f"CUDA's Python binding cannot be imported: {error}", hint="pip install cuda-bindings"
        ) from error
    return runtime


@dataclass(frozen=True)
class Strided:
    """Where rows begin in the GPU's memory, and how many bytes there are from one to the next."""

    address: int
    pitch: int


@dataclass(frozen=True)
class DeviceTensor:
    """A tensor in the GPU's memory, in one piece; ``owner`` is what keeps it there."""

    address: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    owner: object = None

    @property
    def nbytes(self) -> int:
        """How many bytes it has."""
        return math.prod(self.shape) * self.dtype.itemsize

    @property
    def entry_bytes(self) -> int:
        """What one entry of the first axis takes."""
        return math.prod(self.shape[1:]) * self.dtype.itemsize


class Stream:
    """A queue of work for the GPU, done in the order in which it is given, and memory for it.

    What nobody holds any more is closed.
    """

    def __init__(self) -> None:
        """Make an empty one on this thread's GPU.

        Raises:
            UnsupportedError: There is no CUDA binding.
            SpeechError: CUDA has no GPU here.
        """
        self._cuda = load_runtime()
        self.handle = int(self._call(self._cuda.cudaStreamCreate))
        self._taken: set[int] = set()
        self._end = weakref.finalize(self, _end, self._cuda, self.handle, self._taken)

    def close(self) -> None:
        """Wait for what was given, however it ends, and give all memory back."""
        self._end()

    def allocate(self, size: int) -> int:
        """Return the address of so many bytes of the GPU's memory.

        Raises:
            OutOfResourceError: It has not as many left.
        """
        address = int(self._call(self._cuda.cudaMalloc, max(size, _LEAST_BYTES)))
        self._taken.add(address)
        return address

    def free(self, address: int) -> None:
        """Give memory back."""
        self._taken.remove(address)
        self._call(self._cuda.cudaFree, address)

    def upload(self, values: NDArray[Any], address: int) -> None:
        """Copy what lies in one piece to the GPU; it must stay as it is until ``wait``."""
        self._copy(address, values.ctypes.data, values.nbytes, "cudaMemcpyHostToDevice")

    def download(self, address: int, values: NDArray[Any]) -> None:
        """Copy from the GPU into an array in one piece, which has it after ``wait``."""
        self._copy(values.ctypes.data, address, values.nbytes, "cudaMemcpyDeviceToHost")

    def zero(self, address: int, size: int) -> None:
        """Fill memory of the GPU with zeros."""
        self._call(self._cuda.cudaMemsetAsync, address, 0, size, self.handle)

    def copy(self, source: Strided, target: Strided, width: int, rows: int) -> None:
        """Copy rows of ``width`` bytes from one place of the GPU's memory to another."""
        kind = self._cuda.cudaMemcpyKind.cudaMemcpyDeviceToDevice
        places = (target.address, target.pitch, source.address, source.pitch)
        self._call(self._cuda.cudaMemcpy2DAsync, *places, width, rows, kind, self.handle)

    def wait(self) -> None:
        """Wait until all that was given is done.

        Raises:
            SpeechError: Some of it failed.
        """
        self._call(self._cuda.cudaStreamSynchronize, self.handle)

    def _copy(self, target: int, source: int, size: int, direction: str) -> None:
        kind = getattr(self._cuda.cudaMemcpyKind, direction)
        self._call(self._cuda.cudaMemcpyAsync, target, source, size, kind, self.handle)

    def _call(self, function: Any, *arguments: Any) -> Any:  # noqa: ANN401 - as above
        """Return what a function of the runtime gives, or raise what it says."""
        error, *values = function(*arguments)
        if error == self._cuda.cudaError_t.cudaErrorMemoryAllocation:
            raise OutOfResourceError("the GPU has not enough memory left", hint=LESS_MEMORY)
        if error != self._cuda.cudaError_t.cudaSuccess:
            said = self._cuda.cudaGetErrorString(error)[1].decode()
            raise SpeechError(f"CUDA: {function.__name__}: {said}")
        return values[0] if values else None


def _end(cuda: Any, handle: int, taken: set[int]) -> None:  # noqa: ANN401 - as above
    """Close a stream; errors are passed over, for after some of them CUDA does nothing more."""
    with suppress(Exception):
        # Else it might still write into what is about to be freed, here and on the host.
        cuda.cudaStreamSynchronize(handle)
        for address in taken:
            cuda.cudaFree(address)
        taken.clear()
        cuda.cudaStreamDestroy(handle)


class Buffer:
    """Memory of the GPU for one tensor, which grows with it."""

    def __init__(self, stream: Stream) -> None:
        """Hold nothing yet."""
        self._stream = stream
        self._size = -1
        self.address = 0

    def reserve(self, size: int) -> int:
        """Return the address of at least so many bytes; what was there may be lost."""
        if size > self._size:
            if self.address:
                self._stream.free(self.address)
            self.address, self._size = 0, -1
            self.address, self._size = self._stream.allocate(size), size
        return self.address
