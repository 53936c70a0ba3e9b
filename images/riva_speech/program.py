"""What all programs share: exit codes, error lines and the log format."""

from __future__ import annotations

import errno
import json
import logging
import signal
import sys
import time
from enum import Enum
from typing import TYPE_CHECKING

from riva_speech.errors import OutOfResourceError, SpeechError

if TYPE_CHECKING:
    from collections.abc import Callable

INTERRUPTED = 130


class _UtcFormatter(logging.Formatter):
    """Lines that begin with an ISO-8601 UTC timestamp, so that logs can be cut by time."""

    converter = staticmethod(time.gmtime)
    default_time_format = "%Y-%m-%dT%H:%M:%S"
    default_msec_format = "%s.%03dZ"


class _JsonFormatter(_UtcFormatter):
    """Lines that are JSON objects; what a message calls its fields become keys of their own."""

    def format(self, record: logging.LogRecord) -> str:
        """Return one line: newlines, of a traceback too, are escaped in it."""
        entry = {
            "time": self.formatTime(record),
            "level": record.levelname,
            "message": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            entry["traceback"] = self.formatException(record.exc_info)
        return json.dumps(entry, ensure_ascii=False)


class LogFormat(Enum):
    """How log lines are written."""

    TEXT = "text"
    JSON = "json"

    def formatter(self) -> logging.Formatter:
        """Return what writes them."""
        if self is LogFormat.JSON:
            return _JsonFormatter()
        return _UtcFormatter("%(asctime)s %(levelname)s %(message)s")


def start_logging(level: int = logging.INFO, *, log_format: LogFormat = LogFormat.TEXT) -> None:
    """Send log lines to stderr, as ``2026-01-31T12:00:00.000Z INFO message`` or as JSON."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(log_format.formatter())
    root = logging.getLogger("riva_speech")
    root.handlers[:] = [handler]
    root.setLevel(level)
    root.propagate = False


def run(body: Callable[[], None]) -> int:
    """Run a program's body and return its exit code.

    A ``SpeechError`` becomes the last lines on stderr, ``error: ...`` and ``hint: ...``; an
    operating-system error is told the same way. Anything else is a bug and keeps its traceback.
    SIGTERM ends a program as Ctrl-C does, so that it clears away what it has begun.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        body()
    except (Exception, KeyboardInterrupt) as error:
        if is_interruption(error):
            sys.stderr.write("error: interrupted\n")
            return INTERRUPTED
        ours = _as_ours(error)
        if not ours:
            raise
        return _report(ours)
    return 0


def is_interruption(error: BaseException) -> bool:
    """Whether somebody asked to stop; an extension module makes an ImportError of that."""
    while error.__cause__ and not isinstance(error, KeyboardInterrupt):
        error = error.__cause__
    return isinstance(error, KeyboardInterrupt)


def _as_ours(error: BaseException) -> SpeechError | None:
    """Return the error of our tree that an exception stands for; None for a bug."""
    if isinstance(error, SpeechError):
        return error
    if isinstance(error, OSError):
        return _from_os(error)
    if isinstance(error, MemoryError):
        return OutOfResourceError("out of memory", hint="use a machine with more")
    return None


def _report(error: SpeechError) -> int:
    sys.stderr.write(f"error: {error.message}\n")
    if error.hint:
        sys.stderr.write(f"hint: {error.hint}\n")
    return error.exit_code


def _from_os(error: OSError) -> SpeechError:
    where = f" ({error.filename})" if error.filename else ""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return OutOfResourceError(f"no space left on the disk{where}", hint="free some space")
    return SpeechError(f"{error.strerror or error}{where}")
