"""What riva-deploy deploys for: the library that runs the graphs, and the backend of Triton."""

from __future__ import annotations

from dataclasses import dataclass

from riva_speech.errors import UsageError

ONNX_RUNTIME = "onnxruntime"
ONNX_RUNTIME_CUDA = "onnxruntime-cuda"
RUNTIMES = (ONNX_RUNTIME, ONNX_RUNTIME_CUDA)

NATIVE, PYTHON = "native", "python"
TRITON_BACKENDS = (NATIVE, PYTHON)

# The largest difference from the source that a deployed model may show, for values below 1 in
# magnitude absolute and for others relative. Log-probabilities are such values.
TOLERANCE = 1e-3


@dataclass(frozen=True)
class Target:
    """How acoustic models are deployed; the values are those of the options."""

    runtime: str = ONNX_RUNTIME
    triton_backend: str = NATIVE

    def __post_init__(self) -> None:
        """Refuse, with a UsageError, what does not exist."""
        if self.runtime not in RUNTIMES or self.triton_backend not in TRITON_BACKENDS:
            raise UsageError(f"there is no runtime {self.runtime} for {self.triton_backend}")

    @property
    def backend(self) -> str:
        """The backend that Triton runs an acoustic model with."""
        return "python" if self.triton_backend == PYTHON else "onnxruntime"

    @property
    def title(self) -> str:
        """How the official log calls the runtime."""
        return "onnx runtime"

    @property
    def on_gpu(self) -> bool:
        """Whether acoustic models run on a GPU."""
        return self.runtime != ONNX_RUNTIME

    @property
    def directory_prefix(self) -> str:
        """What the names of acoustic models begin with."""
        return "riva-onnx-"
