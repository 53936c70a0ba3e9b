"""What TensorRT says: in this program's log, and as the reason in its errors."""

from __future__ import annotations

import logging
import threading
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any

from riva_speech.errors import OutOfResourceError, SpeechError, UnsupportedError
from riva_speech.sessions.cuda import LESS_MEMORY

if TYPE_CHECKING:
    from collections.abc import Iterator

_log = logging.getLogger("riva_speech.engine")

_NO_MEMORY = ("outofmemory", "out of memory")


class Heard:
    """The errors that a library says while something is asked of it."""

    def __init__(self) -> None:
        """Begin with none."""
        self.errors: list[str] = []

    def failure(self, what: str, kind: type[SpeechError], hint: str) -> SpeechError:
        """Return the error that ``what`` failed: of a kind, or the one for memory that is lacking.

        The first thing that the library said is the reason: more of it tells of what followed.
        """
        reason = self.errors[0] if self.errors else "the library gives no reason"
        if any(sign in error.lower() for error in self.errors for sign in _NO_MEMORY):
            return OutOfResourceError(f"{what}: {reason}", hint=LESS_MEMORY)
        return kind(f"{what}: {reason}", hint=hint)


class _Listeners(threading.local):
    """Who listens to this thread: the library speaks on the one that asks it for something."""

    def __init__(self) -> None:
        self.all: list[Heard] = []


_listeners = _Listeners()


@contextmanager
def hearing() -> Iterator[Heard]:
    """Give what becomes the errors that any library says on this thread meanwhile."""
    heard = Heard()
    _listeners.all.append(heard)
    try:
        yield heard
    finally:
        _listeners.all.remove(heard)


def started(trt: Any, name: str) -> Any:  # noqa: ANN401 - the library has no types
    """Return a library's Runtime or Builder, which speaks through ``logger_of`` it.

    Raises:
        UnsupportedError: It does not start here.
    """
    with hearing() as heard:
        try:
            return getattr(trt, name)(logger_of(trt))
        except TypeError:
            # That is how the binding tells of a null pointer.
            raise heard.failure(
                f"{trt.__name__} does not start here", UnsupportedError, "check the GPU's driver"
            ) from None


@cache
def logger_of(trt: Any) -> Any:  # noqa: ANN401 - as above
    """Return the logger of a library: it wants the same one wherever it is given one."""
    severities = trt.ILogger.Severity
    levels = {
        severities.INTERNAL_ERROR: logging.ERROR,
        severities.ERROR: logging.ERROR,
        # Of what most graphs have, and what each step took: for whoever works on this program.
        severities.WARNING: logging.DEBUG,
        severities.INFO: logging.DEBUG,
        severities.VERBOSE: logging.DEBUG,
    }

    class Logger(trt.ILogger):  # type: ignore[misc]  # as above
        """The library calls it, on any thread."""

        def __init__(self) -> None:
            # Not by super(): the binding looks for this call.
            trt.ILogger.__init__(self)

        def log(self, severity: Any, message: str) -> None:  # noqa: ANN401 - as above
            level = levels[severity]
            _log.log(level, "%s: %s", trt.__name__, message)
            if level == logging.ERROR:
                for heard in _listeners.all:
                    heard.errors.append(message)

    return Logger()
