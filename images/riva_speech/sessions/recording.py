"""Runs on a GPU that are recorded, and replayed for every later batch of their size.

A run of an acoustic model starts a thousand small programs on the GPU, and starting them one by one
takes longer than they do. What was recorded (a CUDA graph) starts all at once. ONNX Runtime records
a run under a number, and replays it for later runs of that number by the same thread, on the
tensors that the recorded one was given, where they lay
(https://onnxruntime.ai/docs/execution-providers/CUDA-ExecutionProvider.html#using-cuda-graphs-preview).
So each recording has tensors of its own on the GPU, to which and from which is copied.

While one is made, CUDA refuses memory to all threads of the process: so they are made before the
process serves anybody.
"""

from __future__ import annotations

import itertools
import logging
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np

from riva_speech.sessions.cuda import DEVICE, DeviceTensor, Stream

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping
    from typing import TypeAlias

    from numpy.typing import NDArray

    Tensors: TypeAlias = Mapping[str, NDArray[Any] | DeviceTensor]
    Plain: TypeAlias = Callable[[Tensors, Collection[str]], Tensors]

_log = logging.getLogger(__name__)

# ONNX Runtime's name for the number of a recording, and the number of a run that is none.
_NUMBER = "gpu_graph_id"
_UNRECORDED = "-1"


def recorded_size(count: int) -> int:
    """Return the size of batch in which so many items are run: 1, 2, 3, 4, 6, 8, 12, 16, 24 ...

    There are few sizes, for each takes a recording, and at most a third of a batch is in vain.
    """
    power = 1 << (count - 1).bit_length()
    return 3 * power // 4 if count <= 3 * power // 4 else power


def recorded_sizes(most: int) -> list[int]:
    """Return the sizes in which up to ``most`` items are run, the largest first."""
    return sorted({recorded_size(count) for count in range(1, most + 1)}, reverse=True)


def unrecorded() -> Any:  # noqa: ANN401 - ONNX Runtime has no types
    """Return the options of a run that is neither recorded nor replayed."""
    return _options(_UNRECORDED)


class Recorder:
    """Runs one session, all in one thread: what is recorded is replayed, the rest is not."""

    def __init__(self, session: Any) -> None:  # noqa: ANN401 - as above
        """Record runs of an ONNX Runtime session that was opened for it."""
        self._session = session
        self._recordings: dict[int, _Recording] = {}
        self._numbers = itertools.count(1)
        self._thread = ThreadPoolExecutor(1, "gpu")

    def record(self, plain: Plain, inputs: Tensors, kept: Collection[str]) -> Tensors:
        """Run the model as ``run`` does, and record how, where that can be."""
        return self._thread.submit(self._record, plain, inputs, kept).result()

    def run(self, plain: Plain, inputs: Tensors, kept: Collection[str]) -> Tensors:
        """Run the model; the ``kept`` outputs stay on the GPU, and are there until the next run.

        What was not recorded is run by ``plain``, which is given the same inputs.
        """
        return self._thread.submit(self._run, plain, inputs, kept).result()

    def _run(self, plain: Plain, inputs: Tensors, kept: Collection[str]) -> Tensors:
        recording = self._recordings.get(_size(inputs))
        if recording and recording.fits(inputs):
            return recording.run(inputs)
        return plain(inputs, kept)

    def _record(self, plain: Plain, inputs: Tensors, kept: Collection[str]) -> Tensors:
        outputs = plain(inputs, kept)
        try:
            recording = _Recording(self._session, next(self._numbers), inputs, outputs, kept)
            outputs = recording.run(inputs)
        except Exception as error:  # noqa: BLE001 - whatever it is: the model runs without
            reason = str(error).strip().rstrip(".")
            _log.warning(
                "Runs of %d streams are not recorded, and take longer: %s. Where an older version "
                "deployed the model, deploy it again",
                _size(inputs),
                reason,
            )
        else:
            self._recordings[_size(inputs)] = recording
        return outputs


class _Recording:
    """The runs of one size of batch, on tensors that stay where they are."""

    def __init__(
        self,
        session: Any,  # noqa: ANN401 - as above
        number: int,
        inputs: Tensors,
        outputs: Tensors,
        kept: Collection[str],
    ) -> None:
        """Take the shapes of a run that was not recorded; the next one will be."""
        self._session = session
        self._stream = Stream()
        self._inputs = {name: self._beside(value) for name, value in inputs.items()}
        self._outputs = {name: self._own(value) for name, value in outputs.items()}
        self._kept = frozenset(kept)
        self._options = _options(str(number))
        self._binding = session.io_binding()
        for name, tensor in self._inputs.items():
            self._binding.bind_input(name, DEVICE, 0, *_place(tensor))
        for name, tensor in self._outputs.items():
            self._binding.bind_output(name, DEVICE, 0, *_place(tensor))

    def fits(self, inputs: Tensors) -> bool:
        """Whether tensors have its shapes, and those on the GPU lie where they lay."""
        return all(
            value.shape == tensor.shape
            and (not isinstance(value, DeviceTensor) or value.address == tensor.address)
            for value, tensor in zip(inputs.values(), self._inputs.values(), strict=True)
        )

    def run(self, inputs: Tensors) -> Tensors:
        """Run the model: record it the first time, replay that from then on."""
        # These are to stay as they are until they are copied.
        sent = {
            name: np.ascontiguousarray(value)
            for name, value in inputs.items()
            if isinstance(value, np.ndarray)
        }
        for name, value in sent.items():
            self._stream.upload(value, self._inputs[name].address)
        self._stream.wait()
        self._session.run_with_iobinding(self._binding, self._options)
        self._binding.synchronize_outputs()
        return self._received()

    def _received(self) -> Tensors:
        """Return the outputs, those that are not kept copied from the GPU."""
        values: dict[str, NDArray[Any] | DeviceTensor] = dict(self._outputs)
        for name, tensor in self._outputs.items():
            if name not in self._kept:
                values[name] = here = np.empty(tensor.shape, tensor.dtype)
                self._stream.download(tensor.address, here)
        self._stream.wait()
        return values

    def _beside(self, value: NDArray[Any] | DeviceTensor) -> DeviceTensor:
        """Return where an input is read: where it lies, or a place on the GPU for it."""
        return value if isinstance(value, DeviceTensor) else self._own(value)

    def _own(self, value: NDArray[Any] | DeviceTensor) -> DeviceTensor:
        """Return a place on the GPU for what is like a value."""
        address = self._stream.allocate(value.nbytes)
        return DeviceTensor(address, value.shape, value.dtype, self._stream)


def _size(inputs: Tensors) -> int:
    """Return how many entries a batch has."""
    return next(iter(inputs.values())).shape[0]


def _options(number: str) -> Any:  # noqa: ANN401 - as above
    import onnxruntime  # noqa: PLC0415 - takes long to import, and help texts need none

    options = onnxruntime.RunOptions()
    options.add_run_config_entry(_NUMBER, number)
    return options


def _place(tensor: DeviceTensor) -> tuple[Any, tuple[int, ...], int]:
    """Return what binding a tensor takes."""
    return tensor.dtype, tensor.shape, tensor.address
