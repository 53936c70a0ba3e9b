"""Streams by a cache-aware model on a GPU, whose caches stay there from one step to the next."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from riva_speech.asr.cache_aware import StreamingAcousticModel
from riva_speech.asr.gpu_arena import GpuArena
from riva_speech.sessions.cuda import DeviceTensor
from riva_speech.sessions.recording import recorded_sizes

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from riva_speech.asr.arena import Arena, Row
    from riva_speech.asr.streaming_config import CacheConfig
    from riva_speech.batching import BatchLimits
    from riva_speech.sessions import Session
    from riva_speech.sessions.onnx import OnnxSession

_log = logging.getLogger(__name__)


class GpuStreamingModel(StreamingAcousticModel):
    """Encodes streams as its base does; both of its sessions run on the GPU.

    Where these record their runs, a run has one of few sizes: it is filled up with entries that
    nobody asks for.
    """

    # Whether runs are recorded at this moment.
    _is_rehearsing = False

    def limits(self, limits: BatchLimits) -> BatchLimits:
        """Return the limits of runs: one at a time, for they are recorded in one place."""
        return replace(limits, runs=1) if self._is_recorded else limits

    def rehearse(self, most: int) -> None:
        """Record runs of up to ``most`` streams."""
        if not self._is_recorded:
            return
        self._is_rehearsing = True
        try:
            # The largest first: it makes the place that all others share.
            for size in recorded_sizes(most):
                self._rehearse(size)
        finally:
            self._is_rehearsing = False

    def _rehearse(self, size: int) -> None:
        """Let so many streams, which are dropped then, hear two chunks of nothing together."""
        try:
            states = [self.start() for _ in range(size)]
            for _ in range(2):
                silence = np.zeros((self._n_mels, self.wanted_frames(states[0])), np.float32)
                with self.encoding(states, [silence] * size):
                    pass
        except Exception as error:  # noqa: BLE001 - fewer streams than these may go well
            _log.warning("Runs of %d streams cannot be recorded: %s", size, error)

    @property
    def _is_recorded(self) -> bool:
        sessions = (self._first, self._following)
        return all(cast("OnnxSession", one).is_recording for one in sessions)

    def _make_arena(self, caches: dict[str, Row], small: dict[str, Row]) -> Arena:
        return GpuArena(small, on_gpu=caches, is_recorded=self._is_recorded)

    @staticmethod
    def _given(cache: CacheConfig, rows: Any) -> dict[str, Any]:  # noqa: ANN401 - the arena's own
        return dict(zip(cache.inputs, rows if cache.is_split else [rows], strict=True))

    def _run(self, session: Session, given: dict[str, Any]) -> dict[str, Any]:
        kept = [cache.next_name for cache in self._config.caches]
        count = len(given["length"])
        size = next(one.shape[0] for one in given.values() if isinstance(one, DeviceTensor))
        filled = {name: _filled(value, size) for name, value in given.items()}
        on_gpu = cast("OnnxSession", session)
        outputs = on_gpu.run_on_gpu(filled, kept, record=self._is_rehearsing)
        return {name: _first_of(value, count) for name, value in outputs.items()}


def _filled(value: NDArray[Any] | DeviceTensor, size: int) -> NDArray[Any] | DeviceTensor:
    """Return a tensor of so many entries, the last one as often as it takes."""
    if isinstance(value, DeviceTensor) or len(value) == size:
        return value
    return np.concatenate([value, np.repeat(value[-1:], size - len(value), axis=0)])


def _first_of(value: NDArray[Any] | DeviceTensor, count: int) -> NDArray[Any] | DeviceTensor:
    """Return a tensor's first entries."""
    if isinstance(value, DeviceTensor):
        return replace(value, shape=(count, *value.shape[1:]))
    return value[:count]
