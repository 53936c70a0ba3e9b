"""Sessions on a Triton elsewhere: the acoustic models run there, all else here.

The repository folder here says what the models are; Triton must serve the same ones.
"""

from __future__ import annotations

from concurrent.futures import Future
from concurrent.futures import TimeoutError as NoAnswerError
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from tritonclient import grpc as triton
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

from riva_speech import repository
from riva_speech.batching import UnavailableError
from riva_speech.errors import NotReadyError, SpeechError, UnsupportedError
from riva_speech.sessions.parts import in_parts, joined

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from riva_speech.repository import ModelConfig, Tensor
    from riva_speech.sessions import SessionOpener

    Tensors = Mapping[str, NDArray[Any]]

# How long an answer may take, in seconds: to a question, and to a run.
_QUESTION_SECONDS = 10
_RUN_SECONDS = 60
# What gRPC says of a server that is away or hangs, as tritonclient spells it.
_AWAY = ("StatusCode.UNAVAILABLE", "StatusCode.DEADLINE_EXCEEDED", "StatusCode.CANCELLED")
_KEEPALIVE = triton.KeepAliveOptions(keepalive_time_ms=30_000, keepalive_timeout_ms=10_000)


def remote_opener(uri: str) -> SessionOpener:
    """Connect to a Triton at HOST:PORT; return what opens its models by their folders here.

    Raises:
        NotReadyError: It is away, or has not loaded its models.
    """
    client = triton.InferenceServerClient(uri, keepalive_options=_KEEPALIVE)
    try:
        ready = client.is_server_ready(client_timeout=_QUESTION_SECONDS)
    except InferenceServerException as error:
        raise NotReadyError(
            f"there is no Triton at {uri}: {error.message()}",
            hint="start it, or check --triton-uri: its gRPC port is 8001 unless set otherwise",
        ) from error
    if not ready:
        raise NotReadyError(
            f"the Triton at {uri} has not loaded its models", hint="see its log, and try again"
        )
    return partial(_open, client, uri)


def _open(client: Any, uri: str, folder: Path) -> RemoteSession:  # noqa: ANN401 - it has no types
    """Open the model of a folder, once it is certain that Triton serves the same.

    Raises:
        NotReadyError: Triton does not serve it.
        UnsupportedError: Triton serves another model of this name.
    """
    config = repository.read_config(folder)
    try:
        ready = client.is_model_ready(config.name, client_timeout=_QUESTION_SECONDS)
        if not ready:
            raise NotReadyError(
                f"the Triton at {uri} does not serve {config.name}",
                hint=f"give it the same repository as this server: {folder.parent}",
            )
        answer = client.get_model_config(config.name, client_timeout=_QUESTION_SECONDS)
    except InferenceServerException as error:
        raise NotReadyError(f"the Triton at {uri} cannot be asked: {error.message()}") from error
    theirs = answer.config
    served = {tensor.name for tensor in (*theirs.input, *theirs.output)}
    ours = {tensor.name for tensor in (*config.inputs, *config.outputs)}
    if served != ours or theirs.max_batch_size != config.max_batch_size:
        raise UnsupportedError(
            f"the Triton at {uri} serves another {config.name} than {folder} describes",
            hint="deploy the model again, and give both servers the result",
        )
    return RemoteSession(client, config)


class RemoteSession:
    """One model of a Triton."""

    def __init__(
        self,
        client: Any,  # noqa: ANN401 - it has no types
        config: ModelConfig,
        patience: float = _RUN_SECONDS + _QUESTION_SECONDS,
    ) -> None:
        """Ask through a client, and take it for away where it says nothing for so many seconds."""
        self._client = client
        self._config = config
        self._patience = patience
        self._inputs = {tensor.name: tensor for tensor in config.inputs}
        self._outputs = [triton.InferRequestedOutput(one.name) for one in config.outputs]

    def run(self, inputs: Tensors) -> dict[str, NDArray[Any]]:
        """Run the model on named tensors and return its named outputs.

        A batch that is larger than Triton takes is asked for in parts, all at once.

        Raises:
            UnavailableError: Triton is away.
            SpeechError: Triton cannot run it.
        """
        parts = in_parts(inputs, self._config.max_batch_size)
        answers = [self._ask(part) for part in parts]
        return joined([self._outputs_of(self._result(answer)) for answer in answers])

    def _outputs_of(self, result: Any) -> Tensors:  # noqa: ANN401 - as above
        return {one.name: self._from_triton(one, result) for one in self._config.outputs}

    def _ask(self, inputs: Tensors) -> Future[Any]:
        """Send a request; its future has Triton's answer or its error."""
        answer: Future[Any] = Future()

        def arrived(result: Any, error: Exception | None) -> None:  # noqa: ANN401 - as above
            """Resolve the future, on the thread of gRPC."""
            if error:
                answer.set_exception(error)
            else:
                answer.set_result(result)

        self._client.async_infer(
            self._config.name,
            [self._to_triton(name, values) for name, values in inputs.items()],
            arrived,
            outputs=self._outputs,
            client_timeout=_RUN_SECONDS,
        )
        return answer

    def _result(self, answer: Future[Any]) -> Any:  # noqa: ANN401 - as above
        try:
            return answer.result(self._patience)
        except NoAnswerError as error:
            message = f"Triton, {self._config.name}: no answer in {self._patience:g} s"
            raise UnavailableError(message) from error
        except InferenceServerException as error:
            message = f"Triton, {self._config.name}: {error.message()}"
            if error.status() in _AWAY:
                raise UnavailableError(message) from error
            raise SpeechError(message) from error

    def _to_triton(self, name: str, values: NDArray[Any]) -> Any:  # noqa: ANN401 - as above
        """Give tensors of one number an entry the dimension that Triton wants."""
        shaped = values[..., np.newaxis] if self._inputs[name].per_entry else values
        tensor = triton.InferInput(name, shaped.shape, np_to_triton_dtype(shaped.dtype))
        tensor.set_data_from_numpy(np.ascontiguousarray(shaped))
        return tensor

    @staticmethod
    def _from_triton(tensor: Tensor, result: Any) -> NDArray[Any]:  # noqa: ANN401 - as above
        values: NDArray[Any] = result.as_numpy(tensor.name)
        return values[..., 0] if tensor.per_entry else values
