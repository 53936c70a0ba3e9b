"""Finding where utterances end, from the blanks of an acoustic model."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from riva_speech.asr.pipeline import EndpointingConfig


class Endpointer:
    """Watches one stream.

    An utterance has begun once enough steps of the start window are not blank, and ends when
    enough steps of the stop window, counted from its beginning, are blank. Before it ends it may
    seem over: that is told by a shorter window, the first pass.
    """

    def __init__(self, config: EndpointingConfig, ms_per_timestep: int) -> None:
        self._config = config
        self._start_window = max(1, round(config.start_history / ms_per_timestep))
        self._stop_window = round(config.stop_history / ms_per_timestep)
        self._first_window = round(config.stop_history_eou / ms_per_timestep)
        self._kept = max(self._start_window, self._stop_window, self._first_window)
        self._blanks = np.zeros(0, np.bool_)
        self._offset = 0
        # Where the utterance begins in the kept steps; None before there is one.
        self._begin: int | None = None

    @property
    def seems_over(self) -> bool:
        """Whether the first pass takes the utterance in progress for ended, as things stand."""
        window = self._first_window
        if not window or self._begin is None or len(self._blanks) < window:
            return False
        return bool(self._blanks[-window:].mean() >= self._config.stop_th_eou)

    def accept(self, blanks: NDArray[np.bool_]) -> list[int]:
        """Take the next steps; return the steps of the stream at which utterances end.

        The returned numbers are exclusive: the utterance is what lies before them.
        """
        self._blanks = np.concatenate([self._blanks, blanks])
        ends: list[int] = []
        while (end := self._next_end()) is not None:
            ends.append(self._offset + end)
            self._forget(end)
            self._begin = None
        self._forget(len(self._blanks) - self._kept)
        return ends

    def _next_end(self) -> int | None:
        """Return the first position in the kept steps at which the utterance is over."""
        begin = self._find_begin()
        if begin is None or not self._stop_window:
            return None
        # Most often so few steps are blank that no window can have enough.
        if np.count_nonzero(self._blanks) / self._stop_window < self._config.stop_th:
            return None
        silent = _share(self._blanks, self._stop_window) >= self._config.stop_th
        # A window counts only when it is full.
        silent[: max(begin, self._stop_window - 1)] = False
        return int(silent.argmax()) + 1 if silent.any() else None

    def _find_begin(self) -> int | None:
        if self._begin is None:
            heard = ~self._blanks
            if np.count_nonzero(heard) / self._start_window < self._config.start_th:
                return None
            begins = _share(heard, self._start_window) >= self._config.start_th
            self._begin = int(begins.argmax()) if begins.any() else None
        return self._begin

    def _forget(self, steps: int) -> None:
        steps = max(0, steps)
        self._blanks = self._blanks[steps:]
        self._offset += steps
        if self._begin is not None:
            self._begin = max(0, self._begin - steps)


def _share(flags: NDArray[np.bool_], window: int) -> NDArray[np.float64]:
    """Return, for each position, the share of set flags in the window that ends there."""
    sums = np.concatenate([np.zeros(window), np.cumsum(flags)])
    shares: NDArray[np.float64] = (sums[window:] - sums[:-window]) / window
    return shares
