from __future__ import annotations

import gzip
import io
import tarfile
from typing import TYPE_CHECKING

import pytest

from quickstart.errors import IntegrityError
from quickstart.store import File, Store

if TYPE_CHECKING:
    from pathlib import Path

CONFIG = b'backend: "onnxruntime"\n'


def pack(path: Path, members: list[tuple[tarfile.TarInfo, bytes]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:gz") as tar:
        for info, data in members:
            tar.addfile(info, io.BytesIO(data))


def plain(name: str, data: bytes = b"x") -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    return info, data


def special(name: str, kind: bytes, target: str = "") -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info, b""


def unpacked(store: Store) -> list[str]:
    with store.draft() as draft:
        names = store.unpack(File("a.tar.gz", 0, ""), draft)
        assert not [p for p in (store.root / draft).rglob("*") if p.is_symlink()]
    return names


def test_model_directories_come_out(tmp_path: Path) -> None:
    """An archive of model directories becomes those directories."""
    members = [
        plain("./m/config.pbtxt", CONFIG),
        plain("./m/1/model.onnx"),
        plain("n/config.pbtxt"),
    ]
    pack(tmp_path / "prebuilt/a.tar.gz", [special("./m", tarfile.DIRTYPE), *members])
    assert unpacked(Store(tmp_path)) == ["m", "n"]


@pytest.mark.parametrize(
    "members",
    [
        [plain("../escaped/file")],
        [plain("m/../../escaped/file")],
        [plain("/escaped/file")],
        [special("m/link", tarfile.SYMTYPE, "/etc/passwd")],
        [special("m", tarfile.SYMTYPE, ".."), plain("m/file")],
        [special("m/link", tarfile.LNKTYPE, "../../.lock")],
        [special("m/pipe", tarfile.FIFOTYPE)],
        [special("m/disk", tarfile.BLKTYPE)],
        [plain("m/file"), plain("m/file", b"again")],
        [plain("m/file"), plain("m/file/below")],
        [plain("beside-the-directories")],
        [],
    ],
    ids=range(12),
)
def test_hostile_archives_bounce(
    tmp_path: Path, members: list[tuple[tarfile.TarInfo, bytes]]
) -> None:
    """Links, devices, paths out of the archive, doubles and nothing at all are refused."""
    store = Store(tmp_path / "store")
    pack(store.root / "prebuilt/a.tar.gz", members)
    with pytest.raises(IntegrityError, match="is not unpacked"):
        unpacked(store)
    assert [path.name for path in tmp_path.iterdir()] == ["store"]
    assert not list(store.root.rglob("escaped"))


@pytest.mark.parametrize("kept", [0.0, 0.3, 0.9, 0.999])
def test_cut_and_altered_archives_bounce(tmp_path: Path, kept: float) -> None:
    """An archive that was cut anywhere, or whose bytes changed, is damaged."""
    path = tmp_path / "prebuilt/a.tar.gz"
    pack(path, [plain("m/file", bytes(range(256)) * 400)])
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * kept)])
    with pytest.raises(IntegrityError):
        unpacked(Store(tmp_path))
    path.write_bytes(whole[:-6] + b"\0" + whole[-5:])
    with pytest.raises(IntegrityError):
        unpacked(Store(tmp_path))


def test_a_header_without_end_bounces_before_it_fills_the_memory(tmp_path: Path) -> None:
    """Fields of a header that shrank to nothing are refused by the length that it states."""
    info = tarfile.TarInfo("fields")
    info.type, info.size = tarfile.XHDTYPE, 32 << 20
    (tmp_path / "prebuilt").mkdir()
    data = info.tobuf(tarfile.USTAR_FORMAT) + bytes(info.size)
    (tmp_path / "prebuilt/a.tar.gz").write_bytes(gzip.compress(data, 1))
    with pytest.raises(IntegrityError, match="a header is too long"):
        unpacked(Store(tmp_path))


def test_a_bomb_bounces_before_it_fills_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What unpacks to far more than its size is refused by the sizes that it states."""
    monkeypatch.setattr("quickstart.store.unpack._ALWAYS_FINE", 0)
    info = tarfile.TarInfo("m/zeros")
    info.size = 1 << 40
    (tmp_path / "prebuilt").mkdir()
    (tmp_path / "prebuilt/a.tar.gz").write_bytes(gzip.compress(info.tobuf() + bytes(4096)))
    with pytest.raises(IntegrityError, match="times its size"):
        unpacked(Store(tmp_path))
