"""What riva-deploy deploys for: the library that runs the graphs, and the backend of Triton."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from riva_speech.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path

ONNX_RUNTIME = "onnxruntime"
ONNX_RUNTIME_CUDA = "onnxruntime-cuda"
TENSORRT, TENSORRT_RTX = "tensorrt", "tensorrt_rtx"
ENGINES = (TENSORRT, TENSORRT_RTX)
RUNTIMES = (ONNX_RUNTIME, ONNX_RUNTIME_CUDA, *ENGINES)

NATIVE, PYTHON = "native", "python"
TRITON_BACKENDS = (NATIVE, PYTHON)

FP32, FP16 = "fp32", "fp16"
PRECISIONS = (FP32, FP16)

# The largest difference from the source that a deployed model may show, for values below 1 in
# magnitude absolute and for others relative. Log-probabilities are such values.
_TOLERANCE = 1e-3
# Where values are rounded on the way, one that lies between two steps may fall on either side.
_ROUNDED_TOLERANCE = 0.1


@dataclass(frozen=True)
class Target:
    """How acoustic models are deployed; the values are those of the options.

    ``compute_capability`` names the GPU that engines are for, such as 8.9; empty stands for this
    machine's. ``allow_unrun`` accepts models that cannot run here, and so are not verified.
    ``optimize`` stores graphs as ONNX Runtime rewrites them.
    """

    runtime: str = ONNX_RUNTIME
    triton_backend: str = NATIVE
    precision: str = FP32
    compute_capability: str = ""
    timing_cache: Path | None = None
    allow_unrun: bool = False
    optimize: bool = False

    def __post_init__(self) -> None:
        """Refuse, with a UsageError, what does not go together."""
        if self.triton_backend == PYTHON and self.is_engine:
            raise UsageError(
                f"--runtime={self.runtime} does not go with --triton_backend={PYTHON}",
                hint="the Python backend runs ONNX Runtime",
            )
        if self.optimize and self.runtime != ONNX_RUNTIME:
            raise UsageError(f"--optimize is for --runtime={ONNX_RUNTIME}")
        engine_options = (self.precision != FP32, self.compute_capability, self.timing_cache)
        if any(engine_options) and not self.is_engine:
            raise UsageError(
                "--precision, --compute_capability and --timing_cache are for engines",
                hint=f"add --runtime={TENSORRT} or --runtime={TENSORRT_RTX}",
            )

    @property
    def is_engine(self) -> bool:
        """Whether graphs are compiled into engines."""
        return self.runtime in ENGINES

    @property
    def backend(self) -> str:
        """The backend that Triton runs an acoustic model with."""
        if self.triton_backend == PYTHON:
            return "python"
        return self.runtime if self.is_engine else "onnxruntime"

    @property
    def title(self) -> str:
        """How the official log calls the runtime."""
        if not self.is_engine:
            return "onnx runtime"
        return "tensorrt with fp16" if self.precision == FP16 else "tensorrt"

    @property
    def on_gpu(self) -> bool:
        """Whether acoustic models run on a GPU."""
        return self.runtime != ONNX_RUNTIME

    @property
    def directory_prefix(self) -> str:
        """What the names of acoustic models begin with."""
        return "riva-trt-" if self.is_engine else "riva-onnx-"

    def tolerance(self, weights: str) -> float:
        """Return the largest difference allowed, given how the RMIR's weights are stored."""
        rounded = self.precision != FP32 or weights != FP32
        return _ROUNDED_TOLERANCE if rounded else _TOLERANCE
