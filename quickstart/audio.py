"""What a file is by its first bytes: a recording that the service takes, or what else."""

from __future__ import annotations

from typing import TYPE_CHECKING

from quickstart.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path

# What is in an Ogg file is for the server to judge.
_RECORDINGS = ((b"fLaC", "FLAC"), (b"OggS", "Ogg"))
_OTHERS = (
    (b"ID3", "MP3 audio"),
    (b"\xff\xfb", "MP3 audio"),
    (b"FORM", "AIFF audio"),
    (b"#!AMR", "AMR audio"),
    (b"\x1aE\xdf\xa3", "a Matroska or WebM file"),
    (b"RIFF", "a RIFF file that is not WAVE"),
    (b"%PDF", "a PDF document"),
    (b"\x89PNG", "a PNG image"),
    (b"\xff\xd8\xff", "a JPEG image"),
    (b"PK\x03\x04", "a ZIP archive"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"\x7fELF", "a program"),
)
_HEAD = 512


def read_recording(path: Path) -> bytes:
    """Return the bytes of a recording, header included, as the service takes them.

    Raises:
        UsageError: The file cannot be read, or is not audio that the service takes.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}", "check its name") from error
    if not container(data):
        raise UsageError(
            f"{path} is not a recording that the service takes: it looks like {_looks_like(data)}",
            "give a WAV, FLAC or Ogg Opus file; `ffmpeg -i INPUT -ac 1 out.wav` makes one",
        )
    return data


def container(data: bytes) -> str:
    """Return the kind of a recording by its first bytes; empty when it is none."""
    if data[:4] == b"RIFF" and data[8:12] == b"WAVE":
        return "WAV"
    return next((name for magic, name in _RECORDINGS if data.startswith(magic)), "")


def _looks_like(data: bytes) -> str:
    """Return in words what other bytes look like."""
    if not data:
        return "an empty file"
    if data[4:8] == b"ftyp":
        return "an MP4 file"
    named = next((name for magic, name in _OTHERS if data.startswith(magic)), "")
    if named:
        return named
    text = data[:_HEAD].decode("utf-8", errors="replace")
    odd = sum(
        c == "\N{REPLACEMENT CHARACTER}" or not (c.isprintable() or c.isspace()) for c in text
    )
    return "text" if odd < 0.05 * len(text) else "raw or unknown data"
