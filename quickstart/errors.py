"""Everything that riva-qs reports as an error, each kind with the exit code it owns.

    RivaQsError                   1  failed, for a reason that has no kind of its own
    +-- NetworkError              1  the other side cannot be reached, or breaks off
    +-- UsageError                2  the command line or the configuration is wrong
    |   +-- ConfigError           2  ... all problems of the configuration at once
    +-- ArtifactMissingError      3  an archive, a deployed model or a sample is not there
    +-- NotAuthorisedError        4  the other side refused who we are
    +-- UnsupportedError          5  this host, installation or backend cannot do it
    +-- NotReadyError             6  the service does not answer, yet or any more
    +-- OutOfResourceError        7  disk, memory or port
    +-- IntegrityError            9  a hash or a key does not fit
    +-- InterruptionError       130  Ctrl-C, or a request to terminate
    +-- ReaderGoneError           0  whoever read the output has left, which is no failure

Exit code 8 belongs to `doctor`. A message says what was tried and what came back; the hint says
what to do next. Errors of the operating system become members of the tree in `from_os_error`.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


class RivaQsError(Exception):
    """A failure that its reader can act on: one sentence, and often a hint."""

    code = 1

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class NetworkError(RivaQsError):
    """The other side cannot be reached, or breaks off; trying again may help.

    Attributes:
        lasting: Whether trying again cannot help, as with a certificate that is not trusted.
        wait: How many seconds the other side asks to wait before the next try, 0 for no wish.
    """

    def __init__(
        self, message: str, hint: str = "", *, lasting: bool = False, wait: float = 0
    ) -> None:
        super().__init__(message, hint)
        self.lasting = lasting
        self.wait = wait


class UsageError(RivaQsError):
    """The command line asks for something that makes no sense."""

    code = 2


class ConfigError(UsageError):
    """The configuration has problems, all of them listed."""

    def __init__(self, problems: Iterable[str], hint: str = "") -> None:
        self.problems = tuple(problems)
        count = len(self.problems)
        title = "the configuration has a problem" if count == 1 else f"{count} problems"
        super().__init__(f"{title}:\n" + "\n".join(f"  {line}" for line in self.problems), hint)


class ArtifactMissingError(RivaQsError):
    """A file that is needed does not exist where it was looked for."""

    code = 3


class NotAuthorisedError(RivaQsError):
    """The other side wants a credential, or refused the one it was shown."""

    code = 4


class UnsupportedError(RivaQsError):
    """The host or the installation cannot do what was asked."""

    code = 5


class NotReadyError(RivaQsError):
    """The service does not answer."""

    code = 6


class OutOfResourceError(RivaQsError):
    """Disk, memory or a port is not to be had."""

    code = 7


class IntegrityError(RivaQsError):
    """Bytes are not the bytes they should be, or a key does not fit."""

    code = 9


class InterruptionError(RivaQsError):
    """Somebody asked to stop: Ctrl-C or SIGTERM."""

    code = 130


class ReaderGoneError(RivaQsError):
    """Stdout was closed by its reader, as `head` does."""

    code = 0


_BY_CODE: dict[int, type[RivaQsError]] = {
    kind.code: kind
    for kind in (
        UsageError,
        ArtifactMissingError,
        NotAuthorisedError,
        UnsupportedError,
        NotReadyError,
        OutOfResourceError,
        IntegrityError,
        InterruptionError,
    )
}


def from_exit_code(code: int | None, message: str, hint: str = "") -> RivaQsError:
    """Return the error that a program of the engine meant with its exit code."""
    return _BY_CODE.get(code or 0, RivaQsError)(message, hint)


_DISK_FULL = (errno.ENOSPC, errno.EDQUOT)
_NO_ACCESS = (errno.EACCES, errno.EPERM, errno.EROFS)


def from_os_error(error: OSError) -> RivaQsError:
    """Return our error for one of the operating system, naming the file when it is known."""
    where = f"{error.filename}: " if error.filename else ""
    message = f"{where}{error.strerror or error}"
    if error.errno in _DISK_FULL:
        return OutOfResourceError(
            message, "free some space, or set riva_model_loc to a larger disk"
        )
    if error.errno == errno.ENOMEM:
        return OutOfResourceError(
            message, "close other programs, or use a machine with more memory"
        )
    if error.errno in _NO_ACCESS:
        hint = "check who owns it, or set riva_model_loc to a folder that you may write to"
        return RivaQsError(message, hint)
    return RivaQsError(message)


def interrupt_behind(error: BaseException) -> KeyboardInterrupt | None:
    """Return the request to stop that an exception comes from, or None.

    Between the two there may be others: an extension module makes an ImportError of an interrupt.
    """
    each: BaseException | None = error
    while each:
        if isinstance(each, KeyboardInterrupt):
            return each
        each = each.__cause__
    return None
