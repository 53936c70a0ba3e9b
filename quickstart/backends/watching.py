"""Following what a program says without trusting that it ever says anything again."""

from __future__ import annotations

import queue
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from quickstart.errors import NotReadyError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

_LOOK = 10.0
_END = object()


@dataclass
class Watch:
    """Reports a program's lines as they come, and tells of a silence that goes on.

    Attributes:
        who: The program, as sentences name it.
        report: Takes each line, and the news of a silence.
        patience: After how many seconds of silence it is given up.
        look: Looks whether the program is still there, and returns what it does; called every
            few seconds of silence.
    """

    who: str
    report: Callable[[str], None]
    patience: float
    look: Callable[[], str] = field(default=lambda: "")

    def follow(self, lines: Iterable[str]) -> Iterator[str]:
        """Yield the lines of a program, each after it was reported.

        Raises:
            NotReadyError: It has said nothing for too long.
        """
        pause, told = min(_LOOK, self.patience / 3), 0.0
        heard = time.monotonic()
        for line in _or_nothing(lines, pause):
            silent = time.monotonic() - heard
            if line is not None:
                heard, told = time.monotonic(), 0.0
                self.report(line)
                yield line
            else:
                # Before it is given up: it may have ended, or who could tell may be away.
                doing = self.look()
                if silent >= self.patience:
                    raise self._given_up(silent)
                # Told ever more seldom: whoever waits an hour wants no line every ten seconds.
                if silent >= 2 * told:
                    told = silent
                    self.report(f"{self.who} has said nothing for {silent:.0f} s{doing}")

    def _given_up(self, silent: float) -> NotReadyError:
        """Return the error for a silence that was too long."""
        return NotReadyError(
            f"{self.who} said nothing for {silent:.0f} s, and was ended",
            "where it only needs longer, as for large TensorRT engines: raise deploy_silence_sec",
        )


def _or_nothing(lines: Iterable[str], pause: float) -> Iterator[str | None]:
    """Yield lines as they come, and None each time that none has come for some seconds."""
    arrived: queue.SimpleQueue[object] = queue.SimpleQueue()

    def read() -> None:
        """Move every line into the queue, and what ends them."""
        try:
            for line in lines:
                arrived.put(line)
            arrived.put(_END)
        except Exception as error:  # noqa: BLE001 - handed to the thread that waits
            arrived.put(error)

    threading.Thread(target=read, daemon=True).start()
    while True:
        try:
            item = arrived.get(timeout=pause)
        except queue.Empty:
            yield None
            continue
        if item is _END:
            return
        if isinstance(item, BaseException):
            raise item
        yield str(item)
