from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from quickstart.audio import container, read_recording
from quickstart.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path


def test_a_recording_is_read_as_it_is(recording: Path) -> None:
    """The bytes of a recording keep their header, which the server reads."""
    assert read_recording(recording) == recording.read_bytes()


@pytest.mark.parametrize(
    ("head", "kind"), [(b"RIFF....WAVE", "WAV"), (b"fLaC", "FLAC"), (b"OggS", "Ogg"), (b"RIFF", "")]
)
def test_containers_are_known_by_their_first_bytes(head: bytes, kind: str) -> None:
    """A file's name does not matter, its first bytes do."""
    assert container(head) == kind


@pytest.mark.parametrize(
    ("data", "looks_like"),
    [
        (b"", "an empty file"),
        (b"root:x:0:0\n", "text"),
        ("Grüße\n".encode() * 9, "text"),
        (b"ID3\x04", "MP3 audio"),
        (b"\0\0\0\x20ftypM4A ", "an MP4 file"),
        (b"%PDF-1.7", "a PDF document"),
        (b"RIFF....AVI ", "a RIFF file that is not WAVE"),
        (bytes(range(256)), "raw or unknown data"),
    ],
)
def test_a_file_that_is_no_recording_is_described(
    tmp_path: Path, data: bytes, looks_like: str
) -> None:
    """What is no recording is refused, in words about what it looks like."""
    path = tmp_path / "file.wav"
    path.write_bytes(data)
    with pytest.raises(UsageError, match=f"file.wav is not .* looks like {looks_like}"):
        read_recording(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    """A recording that is not there, or is a folder, is an error with its name."""
    for path in (tmp_path / "nowhere.wav", tmp_path):
        with pytest.raises(UsageError, match=str(path)):
            read_recording(path)
