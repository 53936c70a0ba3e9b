"""Every error a user can meet, with the exit code that its program ends in.

    SpeechError                 1  failed
    ├── UsageError              2  a wrong option or value
    ├── ArtifactMissingError    3  a file, graph or model that is not there
    ├── UnsupportedError        5  this model, option or platform is not supported
    ├── NotReadyError           6  a server that should answer and does not
    ├── OutOfResourceError      7  disk, memory or port
    └── ArchiveError            9  integrity
        ├── ForeignArchiveError    not an archive of this project
        ├── KeyRequiredError       encrypted, and no key was given
        ├── WrongKeyError          encrypted with another key
        └── DamagedArchiveError    bytes differ from what the manifest says

Exit codes are the contract with whoever starts these programs; they are the same on the host side.
"""

from __future__ import annotations


class SpeechError(Exception):
    """Something that was asked for could not be done.

    Attributes:
        message: What was tried and what came back, as one sentence.
        hint: What to do next, or None where the message says it all.
    """

    exit_code = 1

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class UsageError(SpeechError):
    """A command line or a configuration value that cannot be right."""

    exit_code = 2


class ArtifactMissingError(SpeechError):
    """A file, graph or model that should be there and is not."""

    exit_code = 3


class UnsupportedError(SpeechError):
    """A model, an option or a platform that this version does not support."""

    exit_code = 5


class NotReadyError(SpeechError):
    """A server that this one needs is away, or has not loaded its models."""

    exit_code = 6


class OutOfResourceError(SpeechError):
    """Disk, memory or a port is exhausted or taken."""

    exit_code = 7


class ArchiveError(SpeechError):
    """An archive that cannot be trusted or opened."""

    exit_code = 9


class ForeignArchiveError(ArchiveError):
    """A file that is no archive of this project."""


class KeyRequiredError(ArchiveError):
    """An encrypted archive, opened without a key."""


class WrongKeyError(ArchiveError):
    """An encrypted archive, opened with a key that is not its own."""


class DamagedArchiveError(ArchiveError):
    """An archive whose bytes differ from what its manifest says."""
