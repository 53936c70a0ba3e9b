"""What both halves of the stand-in share."""

from __future__ import annotations

import os
from enum import IntEnum

import numpy as np

MAGIC = "stand-in engine"


class DataType(IntEnum):
    FLOAT = 0
    HALF = 1
    INT8 = 2
    INT32 = 3
    BOOL = 4
    INT64 = 8


class TensorIOMode(IntEnum):
    NONE = 0
    INPUT = 1
    OUTPUT = 2


class BuilderFlag(IntEnum):
    TF32 = 7


class NetworkDefinitionCreationFlag(IntEnum):
    STRONGLY_TYPED = 1


class ILogger:
    class Severity(IntEnum):
        INTERNAL_ERROR = 0
        ERROR = 1
        WARNING = 2
        INFO = 3
        VERBOSE = 4

    def log(self, severity: Severity, msg: str) -> None:
        raise NotImplementedError


_NUMPY: dict[DataType, type[np.generic]] = {
    DataType.FLOAT: np.float32,
    DataType.HALF: np.float16,
    DataType.INT8: np.int8,
    DataType.INT32: np.int32,
    DataType.BOOL: np.bool_,
    DataType.INT64: np.int64,
}


def nptype(trt_type: DataType) -> type[np.generic]:
    return _NUMPY[trt_type]


def has(fault: str) -> bool:
    return os.environ.get("STAND_IN_FAULT") == fault


def capability() -> str:
    return os.environ.get("STAND_IN_CAPABILITY", "8.9")


def check_start(logger: ILogger) -> None:
    if has("start"):
        logger.log(ILogger.Severity.ERROR, "CUDA initialization failure with error: 35")
        raise TypeError("pybind11::init(): factory function returned nullptr")
