"""The half of the stand-in that builds engines."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import onnxruntime

from tensorrt._common import (
    MAGIC,
    BuilderFlag,
    ILogger,
    NetworkDefinitionCreationFlag,
    check_start,
    has,
)

if TYPE_CHECKING:
    Shape = tuple[int, ...]


class IOptimizationProfile:
    def __init__(self) -> None:
        self.ranges: dict[str, tuple[Shape, Shape, Shape]] = {}

    def set_shape(self, input: str, min: Shape, opt: Shape, max: Shape) -> None:
        self.ranges[input] = (min, opt, max)


class ITimingCache:
    def __init__(self, content: bytes) -> None:
        self._content = content

    def serialize(self) -> bytes:
        return self._content + b"measured;"


class IBuilderConfig:
    def __init__(self) -> None:
        self.profile = IOptimizationProfile()
        self._cache = ITimingCache(b"")
        self._flags = {BuilderFlag.TF32}
        self.capability = "CURRENT"

    def add_optimization_profile(self, profile: IOptimizationProfile) -> int:
        self.profile = profile
        return 0

    def clear_flag(self, flag: BuilderFlag) -> None:
        self._flags.discard(flag)

    def get_flag(self, flag: BuilderFlag) -> bool:
        return flag in self._flags

    def create_timing_cache(self, serialized_timing_cache: bytes) -> ITimingCache:
        return ITimingCache(serialized_timing_cache)

    def set_timing_cache(self, cache: ITimingCache, ignore_mismatch: bool) -> bool:
        self._cache = cache
        return not ignore_mismatch

    def get_timing_cache(self) -> ITimingCache:
        return self._cache


class INetworkDefinition:
    def __init__(self) -> None:
        self.graph = Path()


class ParserError:
    def __init__(self, said: str) -> None:
        self._said = said

    def desc(self) -> str:
        return self._said


class OnnxParser:
    def __init__(self, network: INetworkDefinition, logger: ILogger) -> None:
        self._network, self._logger = network, logger
        self._errors: list[ParserError] = []

    @property
    def num_errors(self) -> int:
        return len(self._errors)

    def get_error(self, index: int) -> ParserError:
        return self._errors[index]

    def parse_from_file(self, model: str) -> bool:
        try:
            onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
        except Exception as error:  # noqa: BLE001 - ONNX Runtime's errors have no class of their own
            self._errors.append(ParserError(str(error)))
            self._logger.log(ILogger.Severity.ERROR, str(error))
            return False
        self._network.graph = Path(model)
        return True


class Builder:
    def __init__(self, logger: ILogger) -> None:
        check_start(logger)
        self._logger = logger

    def create_network(self, flags: int = 0) -> INetworkDefinition:
        assert flags == 1 << NetworkDefinitionCreationFlag.STRONGLY_TYPED
        return INetworkDefinition()

    def create_builder_config(self) -> IBuilderConfig:
        return IBuilderConfig()

    def create_optimization_profile(self) -> IOptimizationProfile:
        return IOptimizationProfile()

    def build_serialized_network(
        self, network: INetworkDefinition, config: IBuilderConfig
    ) -> bytes | None:
        said = {
            "magic": MAGIC,
            "profile": config.profile.ranges,
            "capability": config.capability,
            "tf32": config.get_flag(BuilderFlag.TF32),
            "factor": 1.1 if has("wrong") else 1.0,
        }
        told = f"Built an engine of {network.graph.name}"
        self._logger.log(ILogger.Severity.INFO, told)
        return json.dumps(said).encode() + b"\n" + _whole(network.graph)


def _whole(graph: Path) -> bytes:
    """Return a graph with its weights in it."""
    with tempfile.TemporaryDirectory() as folder:
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.optimized_model_filepath = f"{folder}/whole.onnx"
        entry = "session.optimized_model_external_initializers_"
        options.add_session_config_entry(f"{entry}file_name", "none.bin")
        options.add_session_config_entry(f"{entry}min_size_in_bytes", str(1 << 40))
        onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        return Path(folder, "whole.onnx").read_bytes()
