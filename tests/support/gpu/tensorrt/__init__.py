"""A stand-in for TensorRT: an engine is the ONNX graph and its profile, and ONNX Runtime runs it.

It keeps the library's habits where they matter: shapes outside the profile are refused, failures
are told to the logger, what is given to a stream is done later, tensors are at addresses of the
stand-in for CUDA, and TF32 is on unless it is cleared. Faults are switched on by variables of the
environment: ``STAND_IN_CAPABILITY`` is the GPU's, ``STAND_IN_FAULT`` one of

    start     neither builder nor runtime starts
    refuse    engines are refused, with the words of TensorRT for RTX 1.7 on an H200
    wrong     engines are built that compute something else
    context   there is no memory for a context
    execute   an engine does not run
"""

from __future__ import annotations

from tensorrt._building import (
    Builder,
    IBuilderConfig,
    INetworkDefinition,
    IOptimizationProfile,
    ITimingCache,
    OnnxParser,
    ParserError,
)
from tensorrt._common import (
    BuilderFlag,
    DataType,
    ILogger,
    NetworkDefinitionCreationFlag,
    TensorIOMode,
    nptype,
)
from tensorrt._running import (
    ICudaEngine,
    IExecutionContext,
    Runtime,
)

__all__ = [
    "Builder",
    "BuilderFlag",
    "DataType",
    "IBuilderConfig",
    "ICudaEngine",
    "IExecutionContext",
    "ILogger",
    "INetworkDefinition",
    "IOptimizationProfile",
    "ITimingCache",
    "NetworkDefinitionCreationFlag",
    "OnnxParser",
    "ParserError",
    "Runtime",
    "TensorIOMode",
    "nptype",
]
__version__ = "10.0.stand-in"
