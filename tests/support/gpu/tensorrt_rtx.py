"""A stand-in for TensorRT for RTX: TensorRT's, told which GPUs an engine is for."""

from __future__ import annotations

from enum import IntEnum

import tensorrt
from tensorrt import (
    BuilderFlag,
    DataType,
    ICudaEngine,
    IExecutionContext,
    ILogger,
    INetworkDefinition,
    IOptimizationProfile,
    ITimingCache,
    NetworkDefinitionCreationFlag,
    OnnxParser,
    ParserError,
    Runtime,
    TensorIOMode,
    nptype,
)

__all__ = [
    "Builder",
    "BuilderFlag",
    "ComputeCapability",
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
__version__ = "1.7.stand-in"


class ComputeCapability(IntEnum):
    NONE = 0
    CURRENT = 1
    SM75 = 75
    SM80 = 80
    SM86 = 86
    SM89 = 89
    SM120 = 120


class IBuilderConfig(tensorrt.IBuilderConfig):
    def __init__(self) -> None:
        super().__init__()
        self.num_compute_capabilities = 0

    def set_compute_capability(self, compute_capability: ComputeCapability, index: int) -> bool:
        self.capability = compute_capability.name
        return index < self.num_compute_capabilities


class Builder(tensorrt.Builder):
    def create_builder_config(self) -> IBuilderConfig:
        return IBuilderConfig()
