from __future__ import annotations

import io
import random
import tarfile
import tracemalloc
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from riva_speech.archive import keys, open_archive, split_key, write_archive
from riva_speech.errors import (
    ArchiveError,
    ArtifactMissingError,
    DamagedArchiveError,
    ForeignArchiveError,
    KeyRequiredError,
    UsageError,
    WrongKeyError,
)

METADATA = {"name": "äöü", "numbers": [1, 2.5], "nested": {"yes": True}}


def make(folder: Path, *, key: str | None = None, content: bytes = b"weights") -> Path:
    """Write an archive with two artefacts."""
    (folder / "a").write_bytes(content)
    (folder / "b").write_bytes(b"")
    path = folder / "model.riva"
    sources = {"graph.onnx": folder / "a", "empty": folder / "b"}
    write_archive(path, kind="riva", metadata=METADATA, sources=sources, key=key, force=True)
    return path


def rewrite_manifest(path: Path, change: dict[str, object]) -> None:
    """Change top-level values of a manifest and leave the rest of the archive as it is."""
    with tarfile.open(path) as tar:
        members = [(member, tar.extractfile(member)) for member in tar]
        data = [(member.name, file.read()) for member, file in members if file]
    manifest = yaml.safe_load(data[0][1]) | change
    data[0] = (data[0][0], yaml.safe_dump(manifest).encode())
    with tarfile.open(path, "w") as tar:
        for name, content in data:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))


@pytest.mark.parametrize("key", [None, "a key: with colons"])
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=10)
@given(content=st.binary(max_size=3000))
def test_what_goes_in_comes_out(tmp_path: Path, key: str | None, content: bytes) -> None:
    """Metadata and artefacts survive the way through an archive, sealed or not."""
    path = make(tmp_path, key=key, content=content)

    with open_archive(path, kind="riva", key=key) as archive:
        archive.extract("graph.onnx", tmp_path / "out")

        assert archive.metadata == METADATA
        assert archive.names == ("graph.onnx", "empty")
        assert (tmp_path / "out").read_bytes() == content


def test_equal_content_gives_equal_archives(tmp_path: Path) -> None:
    """An archive depends on its content only, not on when or where it was written."""
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()

    assert make(tmp_path / "one").read_bytes() == make(tmp_path / "two").read_bytes()


def test_a_sealed_archive_holds_no_plain_text(tmp_path: Path) -> None:
    """Neither content nor key can be read from a sealed archive."""
    stored = make(tmp_path, key="passphrase", content=b"weights" * 100).read_bytes()

    assert b"weights" not in stored
    assert b"passphrase" not in stored


def test_a_sealed_archive_wants_its_key(tmp_path: Path) -> None:
    """No key is an error of its own."""
    path = make(tmp_path, key="right")

    with pytest.raises(KeyRequiredError, match="no key was given"), open_archive(path, kind="riva"):
        pass


def test_a_wrong_key_is_told_from_damage(tmp_path: Path) -> None:
    """Another key than the archive's is an error of its own."""
    path = make(tmp_path, key="right")

    with (
        pytest.raises(WrongKeyError, match="another key"),
        open_archive(path, kind="riva", key="wrong"),
    ):
        pass


def test_a_key_for_an_open_archive_is_ignored(tmp_path: Path) -> None:
    """The official tools take a key where none is needed, and so does this."""
    with open_archive(make(tmp_path), kind="riva", key="any") as archive:
        assert archive.metadata == METADATA


@pytest.mark.parametrize("key", [None, "key"])
def test_a_flipped_bit_is_damage(tmp_path: Path, key: str | None) -> None:
    """A changed artefact is found, and nothing of it is left behind."""
    path = make(tmp_path, key=key)
    with tarfile.open(path) as tar:
        offset = tar.getmember("graph.onnx").offset_data
    data = bytearray(path.read_bytes())
    data[offset] ^= 1
    path.write_bytes(data)

    with (
        open_archive(path, kind="riva", key=key) as archive,
        pytest.raises(DamagedArchiveError, match=r"graph\.onnx"),
    ):
        archive.extract("graph.onnx", tmp_path / "out")

    assert not (tmp_path / "out").exists()
    assert not list(tmp_path.glob("*.partial")) + list(tmp_path.glob(".*.partial"))


def test_changed_metadata_of_a_sealed_archive_is_damage(tmp_path: Path) -> None:
    """A sealed archive's manifest cannot be altered without the key."""
    path = make(tmp_path, key="key")
    rewrite_manifest(path, {"metadata": {"name": "another"}})

    with (
        pytest.raises(DamagedArchiveError, match="altered"),
        open_archive(path, kind="riva", key="key"),
    ):
        pass


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(st.data())
def test_any_cut_is_an_archive_error(tmp_path: Path, data: st.DataObject) -> None:
    """An archive cut short anywhere is refused, or every artefact in it is whole."""
    path = make(tmp_path, content=b"x" * 3000)
    whole = path.read_bytes()
    path.write_bytes(whole[: data.draw(st.integers(0, len(whole) - 1))])

    try:
        with open_archive(path, kind="riva") as archive:
            archive.extract("graph.onnx", tmp_path / "out")
    except ArchiveError:
        return

    assert (tmp_path / "out").read_bytes() == b"x" * 3000


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(content=st.binary(max_size=2000))
def test_random_bytes_are_foreign(tmp_path: Path, content: bytes) -> None:
    """A file of anything else is not one of ours."""
    path = tmp_path / "noise.riva"
    path.write_bytes(content)

    with pytest.raises(ForeignArchiveError), open_archive(path, kind="riva"):
        pass


def test_an_archive_of_nvidia_is_recognised(tmp_path: Path) -> None:
    """A tar with the manifest of NVIDIA's format is refused by name, with what deploys it."""
    path = make(tmp_path)
    rewrite_manifest(path, {"format": None, "files": {}})

    with pytest.raises(ForeignArchiveError) as caught, open_archive(path, kind="riva"):
        pass

    assert "NVIDIA's image" in str(caught.value.hint)


def test_a_riva_is_not_an_rmir(tmp_path: Path) -> None:
    """The two kinds are told apart, whatever the file is called."""
    with (
        pytest.raises(ForeignArchiveError, match=r"\.rmir archive is wanted"),
        open_archive(make(tmp_path), kind="rmir"),
    ):
        pass


@pytest.mark.parametrize(
    "change",
    [
        {"artifacts": [{"name": "../../etc/passwd", "size": 7, "sha256": "0" * 64}]},
        {"artifacts": [{"name": "graph.onnx", "size": -1, "sha256": "0" * 64}]},
        {"artifacts": [{"name": "graph.onnx", "size": 7, "sha256": 5}]},
        {"artifacts": []},
        {"artifacts": "none"},
        {"metadata": None},
        {"encryption": {"salt": "AA==", "n": 1 << 30, "r": 8, "p": 1}},
        {"encryption": {"salt": 5}},
    ],
)
def test_hostile_manifests_are_refused(tmp_path: Path, change: dict[str, object]) -> None:
    """Names with paths, impossible sizes and costly key derivations never get past the manifest."""
    path = make(tmp_path)
    rewrite_manifest(path, change)

    with pytest.raises(DamagedArchiveError), open_archive(path, kind="riva", key="key"):
        pass


def test_an_existing_file_is_kept_without_force(tmp_path: Path) -> None:
    """Writing over a file needs force, and a refusal leaves it as it was."""
    path = make(tmp_path)
    before = path.read_bytes()

    with pytest.raises(UsageError, match="already exists"):
        write_archive(path, kind="riva", metadata={}, sources={"x": tmp_path / "a"})

    assert path.read_bytes() == before


def test_a_missing_source_leaves_nothing(tmp_path: Path) -> None:
    """An archive that cannot be finished is not begun."""
    with pytest.raises(FileNotFoundError):
        write_archive(
            tmp_path / "new.riva", kind="riva", metadata={}, sources={"x": tmp_path / "missing"}
        )

    assert not list(tmp_path.iterdir())


def test_a_missing_artefact_is_named(tmp_path: Path) -> None:
    """Asking for what an archive does not hold names it."""
    with (
        open_archive(make(tmp_path), kind="riva") as archive,
        pytest.raises(ArtifactMissingError, match="nothing-like-it"),
    ):
        archive.extract("nothing-like-it", tmp_path / "out")


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("model.riva", (Path("model.riva"), None)),
        ("model.riva:tlt_encode", (Path("model.riva"), "tlt_encode")),
        ("a:b/model.riva:key", (Path("a:b/model.riva"), "key")),
        ("model.riva:", (Path("model.riva"), None)),
    ],
)
def test_a_key_follows_the_last_colon(spec: str, expected: tuple[Path, str | None]) -> None:
    """``file[:key]`` is split as the official tools do."""
    assert split_key(spec) == expected


def test_a_colon_in_an_existing_name_is_no_separator(tmp_path: Path) -> None:
    """A file whose name has a colon can be named."""
    path = tmp_path / "a:b.riva"
    path.touch()

    assert split_key(str(path)) == (path, None)


def test_keys_are_read_from_variables_and_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``env:NAME`` and ``file:PATH`` stand for a key that no command line shows."""
    monkeypatch.setenv("SOME_KEY", "sesame")
    (tmp_path / "a:key").write_text("open up\n")

    assert split_key("a:b.rmir:env:SOME_KEY") == (Path("a:b.rmir"), "sesame")
    assert split_key(f"b.rmir:file:{tmp_path}/a:key") == (Path("b.rmir"), "open up")


def test_a_key_longer_than_a_name_is_a_key() -> None:
    """The system's refusal of such a name would show the key."""
    long = "k" * 5000

    assert split_key(f"b.rmir:{long}") == (Path("b.rmir"), long)
    assert keys.given(long) == long


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "No such file"),
        (b"\xff", "not text"),
        (b" \n", "does not hold"),
        (b"k" * 5000, "does not hold"),
        (b"# my key\nsecret\n", "does not hold"),
    ],
)
def test_a_key_file_without_a_key_is_refused(
    tmp_path: Path, content: bytes | None, said: str
) -> None:
    """A key file that is missing, empty, binary, huge or of several lines is a usage error."""
    path = tmp_path / "key"
    if content is not None:
        path.write_bytes(content)

    with pytest.raises(UsageError, match=said):
        split_key(f"model.rmir:file:{path}")
    with pytest.raises(UsageError, match="NOT_SET"):
        split_key("model.rmir:env:NOT_SET")


def version(path: Path) -> int:
    """Return an archive's format version."""
    with tarfile.open(path) as tar:
        file = tar.extractfile("manifest.yaml")
        assert file is not None
        return int(yaml.safe_load(file.read())["format_version"])


@pytest.mark.parametrize("key", [None, "key"])
def test_what_shrinks_is_stored_deflated(tmp_path: Path, key: str | None) -> None:
    """Text takes less room and comes back whole; an archive of noise stays as it was."""
    text = " ".join(str(number) for number in range(50_000)).encode()
    noise = random.Random(0).randbytes(50_000)

    sizes = {}
    for content in (noise, text):
        path = make(tmp_path, key=key, content=content)
        sizes[content] = (path.stat().st_size, version(path))
        with open_archive(path, kind="riva", key=key) as archive:
            archive.extract("graph.onnx", tmp_path / "out")
        assert (tmp_path / "out").read_bytes() == content

    assert sizes[text][0] < 0.6 * len(text)
    assert [sizes[one][1] for one in (noise, text)] == [1, 2]


def test_what_shrinks_beyond_reason_is_stored_as_it_is(tmp_path: Path) -> None:
    """Zeros are not deflated: no archive holds more than a hundred times its size."""
    path = make(tmp_path, content=bytes(1 << 20))

    assert version(path) == 1
    assert path.stat().st_size > 1 << 20


@pytest.mark.parametrize(
    ("size", "said"),
    [(10, "inflates to more"), (10**6, "another size"), (10**9, "beyond reason"), ("x", "beyond")],
)
def test_a_deflated_artefact_cannot_exceed_its_size(
    tmp_path: Path, size: object, said: str
) -> None:
    """A false size is damage, and what it claims is never written."""
    content = b"some words, " * 10 + random.Random(1).randbytes(20_000).hex().encode()
    path = make(tmp_path, content=content)
    with tarfile.open(path) as tar:
        file = tar.extractfile("manifest.yaml")
        assert file is not None
        manifest = yaml.safe_load(file.read())
    manifest["artifacts"][0]["plain_size"] = size
    rewrite_manifest(path, manifest)

    with (
        pytest.raises(DamagedArchiveError, match=said),
        open_archive(path, kind="riva") as archive,
    ):
        archive.extract("graph.onnx", tmp_path / "out")

    assert not (tmp_path / "out").exists()
    assert not list(tmp_path.glob(".*"))


def test_an_unknown_compression_is_refused(tmp_path: Path) -> None:
    """Only what this version can inflate is read."""
    path = make(tmp_path, content=b"some words, " * 1000 + random.Random(1).randbytes(9000))
    with tarfile.open(path) as tar:
        file = tar.extractfile("manifest.yaml")
        assert file is not None
        manifest = yaml.safe_load(file.read())
    manifest["artifacts"][0]["compression"] = "lzma"
    rewrite_manifest(path, manifest)

    with (
        pytest.raises(DamagedArchiveError, match="compressed by 'lzma'"),
        open_archive(path, kind="riva"),
    ):
        pass


@pytest.mark.parametrize("position", ["first", "later"])
@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME])
def test_headers_are_no_larger_than_headers_are(tmp_path: Path, kind: bytes, position: str) -> None:
    """A header that claims gigabytes costs no memory, and is damage or another format."""
    honest, hostile = tmp_path / "honest.riva", tmp_path / "hostile.riva"
    (tmp_path / "a").write_bytes(b"content")
    write_archive(honest, kind="riva", metadata={}, sources={"a": tmp_path / "a"})
    giant = tarfile.TarInfo("x")
    giant.type, giant.size = kind, 8 << 30
    header = giant.tobuf(tarfile.GNU_FORMAT)
    data = honest.read_bytes()
    with tarfile.open(honest) as tar:
        cut = tar.getmembers()[1].offset if position == "later" else 0
    hostile.write_bytes(data[:cut] + header + data[cut:])
    tracemalloc.start()
    try:
        with pytest.raises(ArchiveError), open_archive(hostile, kind="riva"):
            pass
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert peak < 64 << 20


@pytest.mark.parametrize(
    "headers",
    [
        {"GNU.sparse.map": "a,b"},
        {"GNU.sparse.size": "x"},
        {"GNU.sparse.major": "1", "GNU.sparse.minor": "0"},
    ],
    ids=str,
)
def test_sparse_headers_without_numbers_are_damage(tmp_path: Path, headers: dict[str, str]) -> None:
    """Python's tarfile reads them wherever they stand, and fails in its own way."""
    member = tarfile.TarInfo("manifest.yaml")
    member.size, member.pax_headers = 4, headers
    with tarfile.open(tmp_path / "a.riva", "w", format=tarfile.PAX_FORMAT) as tar:
        tar.addfile(member, io.BytesIO(b"a: b"))

    with pytest.raises(DamagedArchiveError), open_archive(tmp_path / "a.riva", kind="riva"):
        pass
