"""Preparing a CTC model's steps for a search over a lexicon."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from riva_speech.asr.acoustic import LogProbs

# What no path can afford; a finite number, since decoders add scores up.
NEVER = -1e30


class Peaks:
    """Gathers each run of steps with one best token into its first step.

    flashlight's search over a lexicon has no place for the repetition of a word's last token: once
    a word is whole, a step is blank or begins another. A token that lasts for several steps would
    count against every word that ends with it. So the run's clearest step comes first, and in the
    others the token's share goes to the blank; the greedy reading stays what it was.
    """

    def __init__(self, blank: int) -> None:
        self._blank = blank
        self._held = np.zeros((0, blank + 1), np.float32)

    def accept(self, log_probs: LogProbs) -> NDArray[np.float32]:
        """Take the next steps; return all but the last run, which may go on."""
        rows = np.concatenate([self._held, log_probs])
        best = rows.argmax(axis=1)
        ends = len(rows)
        if ends and best[-1] != self._blank:
            others = np.flatnonzero(best != best[-1])
            ends = int(others[-1]) + 1 if len(others) else 0
        self._held = rows[ends:]
        return self._gather(rows[:ends], best[:ends])

    def finish(self) -> NDArray[np.float32]:
        """Return the last run."""
        rows, self._held = self._held, self._held[:0]
        return self._gather(rows, rows.argmax(axis=1))

    def _gather(self, rows: NDArray[np.float32], best: NDArray[np.int64]) -> NDArray[np.float32]:
        if not len(rows):
            return rows
        begins = np.concatenate([[True], best[1:] != best[:-1]])
        run = np.cumsum(begins)
        spoken = best != self._blank
        clear = rows[np.arange(len(rows)), best]
        order = np.lexsort((-clear, run))
        firsts = np.flatnonzero(begins)
        peaks = order[firsts]
        swap = spoken[firsts]
        gathered = rows.copy()
        gathered[firsts[swap]] = rows[peaks[swap]]
        gathered[peaks[swap]] = rows[firsts[swap]]
        rest = np.flatnonzero(~begins & spoken)
        share = gathered[rest, best[rest]]
        gathered[rest, self._blank] = np.logaddexp(gathered[rest, self._blank], share)
        gathered[rest, best[rest]] = NEVER
        return gathered
