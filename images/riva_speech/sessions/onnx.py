"""Sessions on ONNX Runtime."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from riva_speech.errors import DamagedArchiveError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

_LOG_ERRORS_ONLY = 3


class OnnxSession:
    """An ONNX model on the CPU."""

    def __init__(self, path: Path, *, threads: int = 0) -> None:
        """Load a model.

        Args:
            path: The graph; weights it keeps outside lie beside it.
            threads: Threads for one run; 0 takes one a core.

        Raises:
            DamagedArchiveError: ONNX Runtime refuses the file.
        """
        import onnxruntime  # noqa: PLC0415 - takes long to import, and help texts need none

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads or os.cpu_count() or 1
        options.log_severity_level = _LOG_ERRORS_ONLY
        # Threads that spin between two operators steal the cores of the other streams.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            self._session = onnxruntime.InferenceSession(
                str(path), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:
            raise DamagedArchiveError(f"ONNX Runtime cannot load {path}: {error}") from error
        self._outputs = [output.name for output in self._session.get_outputs()]

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Run the model on named tensors and return its named outputs."""
        values = self._session.run(self._outputs, dict(inputs))
        return dict(zip(self._outputs, values, strict=True))
