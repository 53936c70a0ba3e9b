"""Graphs compiled into TensorRT engines: one builder for TensorRT and TensorRT for RTX.

Networks are strongly typed: a tensor's precision is the graph's, so half precision is a change of
the graph, which ONNX Runtime can run and compare before anything is compiled.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from riva_speech.errors import SpeechError, UnsupportedError, UsageError
from riva_speech.servicemaker.onnx_package import require_onnx
from riva_speech.servicemaker.targets import FP16, TENSORRT_RTX
from riva_speech.sessions.engine import (
    STAMP_GPU,
    STAMP_LIBRARY,
    STAMP_VERSION,
    capability_here,
    load_library,
)
from riva_speech.sessions.library_log import hearing, logger_of, started

if TYPE_CHECKING:
    from pathlib import Path

    from riva_speech.repository import Tensor
    from riva_speech.servicemaker.batches import Range
    from riva_speech.servicemaker.targets import Target

_log = logging.getLogger("riva_speech.riva_deploy")

# Sums over many values, what is squared or exponentiated, and scales of weights stay precise.
_PRECISE = (
    "DequantizeLinear",
    "Softmax",
    "LogSoftmax",
    "LayerNormalization",
    "BatchNormalization",
    "ReduceMean",
    "ReduceSum",
    "Pow",
    "Sqrt",
    "Exp",
    "Log",
)


_WITHOUT = "deploy without an engine, with --runtime=onnxruntime or --runtime=onnxruntime-cuda"


class EngineBuilder:
    """Builds engines for one library and one GPU."""

    def __init__(self, target: Target, batch: Range) -> None:
        """Load the library and find the GPU; ``batch`` is how many requests run at once.

        Raises:
            UnsupportedError: The library is not installed, or there is no GPU and none is named.
            UsageError: The named GPU is none that the library builds for.
        """
        self.target = target
        self.batch = batch
        self._library = load_library(target.runtime)
        self._capability = target.compute_capability or capability_here()
        if target.runtime == TENSORRT_RTX:
            self._architecture()
        elif self._capability != capability_here():
            raise UnsupportedError(
                f"{target.runtime} builds engines for the GPU of this machine only",
                hint=f"{TENSORRT_RTX} builds them for others too",
            )

    @property
    def stamp(self) -> dict[str, str]:
        """What an engine must be told apart by: it runs nowhere else."""
        return {
            STAMP_LIBRARY: self.target.runtime,
            STAMP_VERSION: str(self._library.__version__),
            STAMP_GPU: self._capability,
        }

    def build(self, graph: Path, inputs: tuple[Tensor, ...], frames: Range) -> bytes:
        """Compile a graph; ``inputs`` says which dimension counts the frames.

        Raises:
            UnsupportedError: The library does not start here, or cannot take the graph.
            OutOfResourceError: It has not enough memory.
        """
        trt = self._library
        builder = started(trt, "Builder")
        network = builder.create_network(_strongly_typed(trt))
        parser = trt.OnnxParser(network, logger_of(trt))
        if not parser.parse_from_file(str(graph)):
            reason = parser.get_error(0).desc() if parser.num_errors else "no reason given"
            raise UnsupportedError(f"{self.target.runtime} cannot read {graph.name}: {reason}")
        config = builder.create_builder_config()
        config.add_optimization_profile(_profile(builder, inputs, self.batch, frames))
        if self.target.precision != FP16:
            # On by default, it keeps ten bits of each factor.
            config.clear_flag(trt.BuilderFlag.TF32)
        if self.target.runtime == TENSORRT_RTX:
            config.num_compute_capabilities = 1
            config.set_compute_capability(self._architecture(), 0)
        self._load_timings(config)
        _log.info("Building TRT engine from ONNX file %s", graph.name)
        with hearing() as heard:
            engine = builder.build_serialized_network(network, config)
        if engine is None:
            raise heard.failure(
                f"{self.target.runtime} gives no engine for {graph.name}",
                UnsupportedError,
                _WITHOUT,
            )
        self._save_timings(config)
        return bytes(engine)

    def _architecture(self) -> Any:  # noqa: ANN401 - the library has no types
        known = self._library.ComputeCapability.__members__
        if not self.target.compute_capability:
            # Whether it builds for this one, the library knows.
            return known["CURRENT"]
        name = f"SM{self._capability.replace('.', '')}"
        if name not in known:
            offered = ", ".join(f"{one[2:-1]}.{one[-1]}" for one in known if one.startswith("SM"))
            raise UsageError(
                f"{self.target.runtime} builds no engine for compute capability {self._capability}",
                hint=f"it builds for {offered}",
            )
        return known[name]

    def _load_timings(self, config: Any) -> None:  # noqa: ANN401 - as above
        path = self.target.timing_cache
        if path is None:
            return
        if self.target.runtime == TENSORRT_RTX:
            raise UsageError(f"{TENSORRT_RTX} measures no timings, so it has no timing cache")
        cache = config.create_timing_cache(path.read_bytes() if path.exists() else b"")
        config.set_timing_cache(cache, ignore_mismatch=False)

    def _save_timings(self, config: Any) -> None:  # noqa: ANN401 - as above
        if self.target.timing_cache:
            self.target.timing_cache.write_bytes(bytes(config.get_timing_cache().serialize()))


def lower(graph: Path, precision: str, target: Path) -> Path:
    """Return a graph in the given precision, written to ``target`` where it is not the source's.

    Inputs and outputs keep their types, and operators that lose too much keep single precision.

    Raises:
        UnsupportedError: The package onnx is not installed.
    """
    if precision != FP16:
        return graph
    if target.exists():
        return target
    require_onnx("half precision needs", otherwise="leave --precision out")
    import onnx  # noqa: PLC0415 - optional
    from onnxruntime.transformers.float16 import (  # noqa: PLC0415 - needs onnx
        convert_float_to_float16,
    )

    model = onnx.load(graph)
    lowered = convert_float_to_float16(model, keep_io_types=True, op_block_list=list(_PRECISE))
    onnx.save(lowered, target)
    return target


def _strongly_typed(trt: Any) -> int:  # noqa: ANN401 - as above
    return 1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)


def _profile(builder: Any, inputs: tuple[Tensor, ...], batch: Range, frames: Range) -> Any:  # noqa: ANN401 - as above
    """Return the ranges of the inputs' shapes."""
    profile = builder.create_optimization_profile()
    for tensor in inputs:
        if tensor.dims.count(-1) > 1:
            raise SpeechError(f"{tensor.name} has several dimensions of any size")
        dims = () if tensor.per_entry else tensor.dims
        profile.set_shape(
            tensor.name,
            *(
                (entries, *(count if one == -1 else one for one in dims))
                for entries, count in (
                    (batch.least, frames.least),
                    (batch.usual, frames.usual),
                    (batch.most, frames.most),
                )
            ),
        )
    return profile
