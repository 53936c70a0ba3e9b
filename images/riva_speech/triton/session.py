"""A session whose runs are requests to another model of the same Triton."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import triton_python_backend_utils as pb_utils

from riva_speech import repository
from riva_speech.errors import SpeechError
from riva_speech.sessions.parts import in_parts, joined

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray


class TritonSession:
    """A model of the repository, run by Triton whatever its backend is."""

    def __init__(self, folder: Path) -> None:
        """Read the model's tensors; Triton loads the model itself."""
        self._config = repository.read_config(folder)
        self._inputs = {tensor.name: tensor for tensor in self._config.inputs}

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Run the model on named tensors and return its named outputs.

        What has more entries than one of the model's batches may have is run in several.

        Raises:
            SpeechError: Triton cannot run it.
        """
        parts = in_parts(inputs, self._config.max_batch_size)
        return joined([self._run(part) for part in parts])

    def _run(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        request = pb_utils.InferenceRequest(
            model_name=self._config.name,
            requested_output_names=[tensor.name for tensor in self._config.outputs],
            inputs=[pb_utils.Tensor(name, self._for_triton(name, inputs[name])) for name in inputs],
            # A model on a GPU would leave its outputs there.
            preferred_memory=pb_utils.PreferredMemory(pb_utils.TRITONSERVER_MEMORY_CPU, 0),
        )
        response = request.exec()
        if response.has_error():
            raise SpeechError(f"{self._config.name}: {response.error().message()}")
        return {tensor.name: self._from_triton(tensor, response) for tensor in self._config.outputs}

    def _for_triton(self, name: str, values: NDArray[Any]) -> NDArray[Any]:
        """Give tensors of one number an entry the dimension that Triton wants."""
        return packed(values[..., np.newaxis] if self._inputs[name].per_entry else values)

    @staticmethod
    def _from_triton(tensor: repository.Tensor, response: Any) -> NDArray[Any]:  # noqa: ANN401 - Triton's
        values: NDArray[Any] = pb_utils.get_output_tensor_by_name(response, tensor.name).as_numpy()
        return values[..., 0] if tensor.per_entry else values


def packed(values: NDArray[Any]) -> NDArray[Any]:
    """Return a copy that lies in memory as its shape says.

    An array with a dimension added in place has a stride of 0 there, and Triton would take it to
    have no bytes.
    """
    return np.array(values, order="C")
