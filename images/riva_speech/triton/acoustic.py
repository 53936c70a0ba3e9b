"""An acoustic model on ONNX Runtime, for a Triton that has no backend of its own for it."""

from __future__ import annotations

from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import triton_python_backend_utils as pb_utils

from riva_speech import repository
from riva_speech.sessions.opening import open_session

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    Tensors = dict[str, NDArray[Any]]


class TritonPythonModel:
    """What Triton's Python backend starts for a folder with a graph."""

    def initialize(self, args: dict[str, str]) -> None:
        """Load the graph; ``model_repository`` is Triton's name for the model's own folder."""
        folder = Path(args["model_repository"])
        self._config = repository.read_config(folder)
        self._session = open_session(folder)

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer what Triton has joined: neighbours of one shape share a run."""
        asked = [(request, self._inputs(request)) for request in requests]
        answers: list[Any] = []
        for _, group in groupby(asked, lambda pair: self._kind(pair[1])):
            answers += self._answer(list(group))
        return answers

    def _inputs(self, request: Any) -> Tensors:  # noqa: ANN401 - Triton's types
        return {
            tensor.name: pb_utils.get_input_tensor_by_name(request, tensor.name).as_numpy()
            for tensor in self._config.inputs
        }

    def _kind(self, inputs: Tensors) -> object:
        """Return what requests of one run have in common; without batches it is themselves."""
        if not self._config.max_batch_size:
            return id(inputs)
        return {name: value.shape[1:] for name, value in inputs.items()}

    def _answer(self, asked: Sequence[tuple[Any, Tensors]]) -> Iterator[Any]:
        requests, inputs = zip(*asked, strict=True)
        if len(requests) == 1:
            yield _response(requests[0], self._session.run(inputs[0]))
            return
        outputs = self._session.run(
            {name: np.concatenate([one[name] for one in inputs]) for name in inputs[0]}
        )
        ends = np.cumsum([len(next(iter(one.values()))) for one in inputs])[:-1]
        split = {name: np.split(value, ends) for name, value in outputs.items()}
        for index, request in enumerate(requests):
            yield _response(request, {name: parts[index] for name, parts in split.items()})


def _response(request: Any, outputs: Tensors) -> Any:  # noqa: ANN401 - Triton's types
    wanted = [name for name in request.requested_output_names() if name in outputs]
    return pb_utils.InferenceResponse([pb_utils.Tensor(name, outputs[name]) for name in wanted])
