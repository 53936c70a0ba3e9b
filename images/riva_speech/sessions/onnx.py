"""Sessions on ONNX Runtime."""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING, Any

import numpy as np

from riva_speech.errors import DamagedArchiveError, UnsupportedError
from riva_speech.sessions.cuda import DEVICE, DeviceTensor
from riva_speech.sessions.recording import Recorder, unrecorded

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

_log = logging.getLogger(__name__)

_LOG_ERRORS_ONLY = 3
# Smaller tensors stay in the graph: ONNX Runtime reads shapes from them while it loads.
_MIN_EXTERNAL_BYTES = 1024
_CUDA, _CPU = "CUDAExecutionProvider", "CPUExecutionProvider"
# Hopper's TensorFloat-32, on by default, keeps ten bits of each factor: one pass through the digits
# model then strays by 0.009 from its source, without it by 0.000003.
#
# What convolutions riva-deploy leaves are planned by cuDNN's rules: the default, to time all ways,
# takes seconds for each new shape of a convolution's input.
_CUDA_OPTIONS = {"use_tf32": "0", "cudnn_conv_algo_search": "HEURISTIC"}
_RECORDING = {"enable_cuda_graph": "1"}
_SHRINK = ("memory.enable_memory_arena_shrinkage", "cpu:0")


class OnnxSession:
    """An ONNX model on the CPU or an NVIDIA GPU."""

    def __init__(
        self,
        path: Path,
        *,
        threads: int = 0,
        on_gpu: bool = False,
        records: bool = False,
        as_written: bool = False,
    ) -> None:
        """Load a model.

        Args:
            path: The graph; weights it keeps outside lie beside it.
            threads: Threads for one run; 0 takes one a core.
            on_gpu: Whether CUDA runs it.
            records: Whether runs are to be recorded, where that can be.
            as_written: Whether each operator runs as the graph has it, with none rewritten.

        Raises:
            DamagedArchiveError: ONNX Runtime refuses the file.
            UnsupportedError: It is to run on a GPU, and this ONNX Runtime has no CUDA.
        """
        if on_gpu:
            check_cuda()
        options = _options(threads, as_written=as_written)
        recording = _open_recording(path, options) if on_gpu and records else None
        providers = [(_CUDA, _CUDA_OPTIONS), _CPU] if on_gpu else [_CPU]
        self._session = recording or _open(path, options, providers)
        # A provider whose libraries do not load is left out with a mere log line.
        if on_gpu and _CUDA not in self._session.get_providers():
            raise UnsupportedError(
                f"{path} is to run on a GPU, and ONNX Runtime's CUDA provider does not start here",
                hint="check the driver, CUDA and cuDNN, or deploy with --runtime=onnxruntime",
            )
        self.device = DEVICE if on_gpu else "cpu"
        self._outputs = [output.name for output in self._session.get_outputs()]
        self._recorder = Recorder(self._session) if recording else None
        self._unrecorded = unrecorded() if recording else None
        # What is known to be fit for a run that is only made to shrink.
        self._first: dict[str, NDArray[Any]] = {}

    @property
    def is_recording(self) -> bool:
        """Whether ``run_on_gpu`` can record runs."""
        return self._recorder is not None

    @property
    def tensors(self) -> tuple[set[str], set[str]]:
        """The names of the inputs and of the outputs."""
        return {one.name for one in self._session.get_inputs()}, set(self._outputs)

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the shape of each input and output; -1 is any size."""
        tensors = (*self._session.get_inputs(), *self._session.get_outputs())
        return {
            tensor.name: tuple(size if isinstance(size, int) else -1 for size in tensor.shape)
            for tensor in tensors
        }

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Run the model on named tensors and return its named outputs."""
        values = self._session.run(self._outputs, dict(inputs), self._unrecorded)
        if not self._first:
            self._first = {name: value.copy() for name, value in inputs.items()}
        return dict(zip(self._outputs, values, strict=True))

    def run_on_gpu(
        self,
        inputs: Mapping[str, NDArray[Any] | DeviceTensor],
        kept: Collection[str],
        *,
        record: bool = False,
    ) -> dict[str, NDArray[Any] | DeviceTensor]:
        """Run the model on tensors here and on the GPU.

        Args:
            inputs: The tensors.
            kept: Outputs that stay there. Where runs of these tensors are recorded, the next one
                overwrites them.
            record: Whether to record how the model runs on these tensors, where that can be;
                nothing else of this process may use the GPU meanwhile.
        """
        if self._recorder is None:
            return self._run_on_gpu(inputs, kept)
        run = self._recorder.record if record else self._recorder.run
        return dict(run(self._run_on_gpu, inputs, kept))

    def _run_on_gpu(
        self, inputs: Mapping[str, NDArray[Any] | DeviceTensor], kept: Collection[str]
    ) -> dict[str, NDArray[Any] | DeviceTensor]:
        binding = self._session.io_binding()
        for name, value in inputs.items():
            if isinstance(value, DeviceTensor):
                binding.bind_input(name, self.device, 0, value.dtype, value.shape, value.address)
            else:
                binding.bind_cpu_input(name, value)
        for name in self._outputs:
            binding.bind_output(name, self.device if name in kept else "cpu")
        self._session.run_with_iobinding(binding, self._unrecorded)
        binding.synchronize_outputs()
        values = zip(self._outputs, binding.get_outputs(), strict=True)
        return {name: _on_device(one) if name in kept else one.numpy() for name, one in values}

    def shrink(self) -> None:
        """Free memory that runs took and none uses now.

        ONNX Runtime keeps it for later runs, enough for the largest ones that ever met, and frees
        it at the end of a run that asks for that. So the first one is made again.
        """
        import onnxruntime  # noqa: PLC0415 - as above

        if self._first:
            options = unrecorded() if self._recorder else onnxruntime.RunOptions()
            options.add_run_config_entry(*_SHRINK)
            self._session.run(self._outputs, self._first, options)


def _open(path: Path, options: Any, providers: Sequence[Any]) -> Any:  # noqa: ANN401 - ONNX Runtime has no types
    """Load a model; the error is that of ``OnnxSession``."""
    import onnxruntime  # noqa: PLC0415 - takes long to import, and help texts need none

    try:
        return onnxruntime.InferenceSession(str(path), options, providers=providers)
    except Exception as error:
        raise DamagedArchiveError(f"ONNX Runtime cannot load {path}: {error}") from error


def _open_recording(path: Path, options: Any) -> Any:  # noqa: ANN401 - as above
    """Load a model such that its runs can be recorded; return None where they cannot be.

    ONNX Runtime refuses graphs of which the processor runs a part.
    """
    try:
        return _open(path, options, [(_CUDA, _CUDA_OPTIONS | _RECORDING), _CPU])
    except DamagedArchiveError as error:
        _log.info("Runs of %s are not recorded: %s", path, error.message)
        return None


def _on_device(value: Any) -> DeviceTensor:  # noqa: ANN401 - ONNX Runtime has no types
    """Return an output of float32 that stayed on the GPU."""
    return DeviceTensor(value.data_ptr(), tuple(value.shape()), np.dtype(np.float32), value)


def _options(threads: int, *, as_written: bool) -> Any:  # noqa: ANN401 - ONNX Runtime has no types
    """Return how sessions run; see ``OnnxSession`` for the arguments."""
    import onnxruntime  # noqa: PLC0415 - as above

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or os.cpu_count() or 1
    options.log_severity_level = _LOG_ERRORS_ONLY
    # Threads that spin between two operators steal the cores of the other streams.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # Integers that are widened to be multiplied are meant to be: no product of integers again.
    options.add_session_config_entry("session.disable_quant_qdq", "1")
    # A plan of memory is made for each shape of inputs, and batches have many.
    options.enable_mem_pattern = False
    if as_written:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        # Weights that are not packed anew stay mapped to their file.
        options.add_session_config_entry("session.disable_prepacking", "1")
    return options


def save_optimised(graph: Path, target: Path, *, weights: str) -> None:
    """Write a graph as ONNX Runtime rewrites it for any CPU; ``weights`` names the file beside it.

    Loading it takes less time, for what could be fused or computed beforehand is.

    Raises:
        DamagedArchiveError: ONNX Runtime refuses the graph.
    """
    import onnxruntime  # noqa: PLC0415 - as above

    options = onnxruntime.SessionOptions()
    options.log_severity_level = _LOG_ERRORS_ONLY
    # One level more would choose layouts for this very processor.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.optimized_model_filepath = str(target)
    entry = "session.optimized_model_external_initializers_"
    options.add_session_config_entry(f"{entry}file_name", weights)
    options.add_session_config_entry(f"{entry}min_size_in_bytes", str(_MIN_EXTERNAL_BYTES))
    try:
        onnxruntime.InferenceSession(str(graph), options, providers=[_CPU])
    except Exception as error:
        raise DamagedArchiveError(f"ONNX Runtime cannot optimise {graph}: {error}") from error


def check_cuda() -> None:
    """Check that the installed ONNX Runtime was built with CUDA.

    Raises:
        UnsupportedError: It was not.
    """
    import onnxruntime  # noqa: PLC0415 - as above

    if _CUDA not in onnxruntime.get_available_providers():
        raise UnsupportedError(
            f"the installed ONNX Runtime {onnxruntime.__version__} has no {_CUDA}",
            hint="install onnxruntime-gpu in its place, or deploy with --runtime=onnxruntime",
        )
