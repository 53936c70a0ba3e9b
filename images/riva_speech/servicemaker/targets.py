"""What riva-deploy deploys for: the library that runs the graphs, and the backend of Triton."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from riva_speech.errors import UsageError
from riva_speech.servicemaker import agreement

if TYPE_CHECKING:
    from pathlib import Path

ONNX_RUNTIME = "onnxruntime"
ONNX_RUNTIME_CUDA = "onnxruntime-cuda"
TENSORRT, TENSORRT_RTX = "tensorrt", "tensorrt_rtx"
ENGINES = (TENSORRT, TENSORRT_RTX)
RUNTIMES = (ONNX_RUNTIME, ONNX_RUNTIME_CUDA, *ENGINES)

NATIVE, PYTHON = "native", "python"
TRITON_BACKENDS = (NATIVE, PYTHON)

FP32, FP16, INT8 = "fp32", "fp16", "int8"
PRECISIONS = (FP32, FP16, INT8)

# The largest difference from the source that a deployed model may show, for values below 1 in
# magnitude absolute and for others relative. Log-probabilities are such values. Where values are
# rounded on the way, one that lies between two steps may fall on either side.
_TOLERANCES = {FP32: 1e-3, FP16: 0.1, INT8: 0.3}


@dataclass(frozen=True)
class Accuracy:
    """When int8 weights will do.

    ``recordings`` are files or folders that both models hear, ``tolerance`` is the largest share of
    steps whose best token may become another. Where int8 is not ``required``, a model for which it
    will not do keeps its own weights.
    """

    recordings: tuple[Path, ...] = ()
    tolerance: float = agreement.TOLERANCE
    required: bool = False


@dataclass(frozen=True)
class Target:
    """How acoustic models are deployed; the values are those of the options.

    ``compute_capability`` names the GPU that engines are for, such as 8.9; empty stands for this
    machine's. ``allow_unrun`` accepts models that cannot run here, and so are not verified.
    ``optimize`` stores graphs as ONNX Runtime rewrites them. ``accuracy`` is for int8.
    """

    runtime: str = ONNX_RUNTIME
    triton_backend: str = NATIVE
    precision: str = FP32
    compute_capability: str = ""
    timing_cache: Path | None = None
    allow_unrun: bool = False
    optimize: bool = False
    accuracy: Accuracy = field(default_factory=Accuracy)

    def __post_init__(self) -> None:
        """Refuse, with a UsageError, what does not go together."""
        if self.triton_backend == PYTHON and self.is_engine:
            raise UsageError(
                f"--runtime={self.runtime} does not go with --triton_backend={PYTHON}",
                hint="the Python backend runs ONNX Runtime",
            )
        if self.optimize and self.runtime != ONNX_RUNTIME:
            raise UsageError(f"--optimize is for --runtime={ONNX_RUNTIME}")
        engine_options = (self.precision == FP16, self.compute_capability, self.timing_cache)
        if any(engine_options) and not self.is_engine:
            raise UsageError(
                "--precision=fp16, --compute_capability and --timing_cache are for engines",
                hint=f"add --runtime={TENSORRT} or --runtime={TENSORRT_RTX}",
            )
        self._check_int8()

    def _check_int8(self) -> None:
        if self.precision == INT8 and self.runtime != ONNX_RUNTIME:
            raise UsageError(f"--precision={INT8} is for --runtime={ONNX_RUNTIME}")
        if not self.accuracy.tolerance <= 1:
            raise UsageError(
                f"--check_tolerance={self.accuracy.tolerance:g} is no share", hint="3 % are 0.03"
            )
        if self.precision != INT8 and self.accuracy != Accuracy():
            raise UsageError(
                "--check_audio, --check_tolerance and --require_precision are for int8 weights",
                hint=f"add --precision={INT8}",
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
        """Return the largest difference allowed, given how the source's weights are stored.

        Only a processor rounds what they are multiplied with.
        """
        rounded = FP32 if self.on_gpu else weights
        return max(_TOLERANCES.get(one, 0.0) for one in (FP32, self._computed, rounded))

    @property
    def _computed(self) -> str:
        """The precision that the deployed graph has and its source has not."""
        return FP16 if self.precision == FP16 else FP32
