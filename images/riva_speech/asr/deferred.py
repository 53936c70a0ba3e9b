"""A decoder that is made when it is first needed, for what a stream's opening must not wait for."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from riva_speech.asr.ctc import Decoder, Hypothesis, Reading


class DeferredDecoder:
    """Stands for a decoder of one stream until there is something to decode."""

    is_quick = False

    def __init__(self, make: Callable[[], Decoder]) -> None:
        self._make = make

    @cached_property
    def _decoder(self) -> Decoder:
        return self._make()

    @property
    def carry(self) -> Any:  # noqa: ANN401 - the decoder's own
        """What the last reading left behind; None before the first."""
        return self._decoder.carry if "_decoder" in vars(self) else None

    def accept(self, reading: Reading) -> None:
        """Take the next steps."""
        self._decoder.accept(reading)

    def best(self) -> Hypothesis:
        """Return what the utterance seems to be so far."""
        return self._decoder.best()

    def end(self, count: int = 1) -> list[Hypothesis]:
        """End the utterance; return at most ``count`` readings, the best first."""
        return self._decoder.end(count)
