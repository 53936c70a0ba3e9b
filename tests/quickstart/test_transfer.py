from __future__ import annotations

import hashlib
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from quickstart import transfer
from quickstart.catalog import Artifact
from quickstart.errors import ArtifactMissingError, IntegrityError, OutOfResourceError
from quickstart.files import sha256
from quickstart.sources import Body, SourceFile
from quickstart.sources.embedded import EmbeddedSource

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

DATA = bytes(range(256)) * 9000


ARTIFACT = Artifact("asr", "en-US", "m", "n", "1", "embedded", "n")


def described(data: bytes = DATA, size: int | None = None) -> SourceFile:
    count = len(data) if size is None else size
    return SourceFile("a.rmir", count, hashlib.sha256(data).hexdigest())


class BrokenSource(EmbeddedSource):
    """Gives the first bytes, and then fails as a disk does."""

    @contextmanager
    def open(self, artifact: Artifact, file: SourceFile, start: int, stop: int) -> Iterator[Body]:
        with super().open(artifact, file, start, stop) as body:
            body.readinto(memoryview(bytearray(1000)))
            raise OSError(5, "Input/output error")


@pytest.fixture
def source(tmp_path: Path) -> EmbeddedSource:
    folder = tmp_path / "package"
    folder.mkdir()
    (folder / "a.rmir").write_bytes(DATA)
    return EmbeddedSource(folder)


def test_a_file_arrives_whole_and_counted(source: EmbeddedSource, tmp_path: Path) -> None:
    """What arrives has every byte, and progress adds up to its size."""
    target, seen = tmp_path / "a.rmir", list[int]()
    transfer.fetch(source, ARTIFACT, described(), target, seen.append)
    assert target.read_bytes() == DATA
    assert sum(seen) == len(DATA)
    assert sha256(target) == described().sha256


@pytest.mark.parametrize("wrong", [described(b"other"), described(size=1)])
def test_other_bytes_never_take_the_name(
    source: EmbeddedSource, tmp_path: Path, wrong: SourceFile
) -> None:
    """A wrong hash or size is an integrity error, and leaves what was there before."""
    target = tmp_path / "a.rmir"
    target.write_bytes(b"before")
    with pytest.raises(IntegrityError, match=r"a\.rmir is not the file that was promised"):
        transfer.fetch(source, ARTIFACT, wrong, target, lambda _: None)
    assert target.read_bytes() == b"before"
    assert not list(tmp_path.glob("*.partial"))


def test_a_transfer_that_breaks_leaves_nothing(source: EmbeddedSource, tmp_path: Path) -> None:
    """A source that fails midway leaves neither a file nor a part of one."""
    with pytest.raises(OSError, match="Input/output"):
        transfer.fetch(
            BrokenSource(source.folder), ARTIFACT, described(), tmp_path / "a.rmir", lambda _: None
        )
    assert [path.name for path in tmp_path.iterdir()] == ["package"]


def test_a_transfer_can_begin_anywhere(source: EmbeddedSource) -> None:
    """A source gives its bytes from any offset, for transfers that resume."""
    with source.open(ARTIFACT, described(), 1000, 3000) as body:
        buffer = memoryview(bytearray(10_000))
        assert body.readinto(buffer) == 2000
        assert buffer[:2000] == DATA[1000:3000]
        assert body.readinto(buffer) == 0


def test_what_the_package_lacks_is_named(tmp_path: Path) -> None:
    """A packaged file that is missing is told with the folder where it was looked for."""
    with pytest.raises(ArtifactMissingError, match=str(tmp_path)):
        EmbeddedSource(tmp_path).open(ARTIFACT, described(), 0, 1).__enter__()


def test_a_disk_without_room_is_told_before(source: EmbeddedSource, tmp_path: Path) -> None:
    """Too little space is an error with both numbers, before a byte is written."""
    with pytest.raises(OutOfResourceError, match=r"1000000\.1 GB are needed .* are free"):
        transfer.fetch(
            source, ARTIFACT, described(size=10**15), tmp_path / "a.rmir", lambda _: None
        )
    assert [path.name for path in tmp_path.iterdir()] == ["package"]


def test_space_is_asked_of_the_folder_that_will_be_made(tmp_path: Path) -> None:
    """A folder that does not exist yet has the space of the one above it."""
    transfer.check_space(tmp_path / "a" / "b", 1)


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 B"), (999, "999 B"), (1500, "1.5 kB"), (4 * 10**9, "4.0 GB")]
)
def test_sizes_are_written_for_people(count: int, text: str) -> None:
    """Sizes have decimal units, as disks are sold."""
    assert transfer.size_text(count) == text
