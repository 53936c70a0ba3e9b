"""An acoustic model on ONNX Runtime, for a Triton that has no backend of its own for it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import triton_python_backend_utils as pb_utils

from riva_speech import repository
from riva_speech.sessions.opening import open_session


class TritonPythonModel:
    """What Triton's Python backend starts for a folder with a graph."""

    def initialize(self, args: dict[str, str]) -> None:
        """Load the graph; ``model_repository`` is Triton's name for the model's own folder."""
        folder = Path(args["model_repository"])
        self._config = repository.read_config(folder)
        self._session = open_session(folder)

    def execute(self, requests: list[Any]) -> list[Any]:
        """Run each request by itself: no two of one instance are ever in one batch."""
        return [self._answer(request) for request in requests]

    def _answer(self, request: Any) -> Any:  # noqa: ANN401 - Triton's types
        inputs = {
            tensor.name: pb_utils.get_input_tensor_by_name(request, tensor.name).as_numpy()
            for tensor in self._config.inputs
        }
        outputs = self._session.run(inputs)
        wanted = [name for name in request.requested_output_names() if name in outputs]
        return pb_utils.InferenceResponse([pb_utils.Tensor(name, outputs[name]) for name in wanted])
