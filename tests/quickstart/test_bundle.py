"""Bundles: what goes in comes out elsewhere, and nothing else does."""

from __future__ import annotations

import io
import json
import tarfile
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from .conftest import CommandLine

Entry = tuple[tarfile.TarInfo, bytes]


def tree(folder: Path) -> list[tuple[str, bytes]]:
    files = (path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != ".lock")
    return [(str(path.relative_to(folder)), path.read_bytes()) for path in files]


@pytest.fixture
def exported(qs: CommandLine) -> Path:
    """A bundle with an archive and its models."""
    qs("init")
    done = qs("bundle", "export", "all.bundle")
    assert done.returncode == 0, done.stderr
    return qs.folder / "all.bundle"


@pytest.fixture
def elsewhere(qs: CommandLine) -> CommandLine:
    """The same command line, with an empty location."""
    qs.options = ["--set", "riva_model_loc=./elsewhere"]
    return qs


def test_models_travel(exported: Path, elsewhere: CommandLine) -> None:
    """An imported generation starts at once, and nothing is deployed or fetched again."""
    done = elsewhere("bundle", "import", exported.name)
    assert done.returncode == 0, done.stderr
    assert "next: riva-qs start" in done.stderr
    assert elsewhere("verify").returncode == 0
    assert elsewhere.json("--offline", "init")["reused"] is True
    assert elsewhere("start").returncode == 0
    elsewhere("stop")


def test_archives_alone_are_deployed_there(qs: CommandLine, elsewhere: CommandLine) -> None:
    """A bundle without models is deployed by `init --offline`."""
    elsewhere.options = []
    qs("init")
    assert qs("bundle", "export", "a.bundle", "--what", "rmirs").returncode == 0
    elsewhere.options = ["--set", "riva_model_loc=./elsewhere"]
    done = elsewhere("bundle", "import", "a.bundle")
    assert "riva-qs --offline init" in done.stderr
    assert elsewhere("--offline", "init").returncode == 0
    assert elsewhere("start").returncode == 0
    elsewhere("stop")


def test_the_same_content_makes_the_same_bytes(qs: CommandLine, exported: Path) -> None:
    """A second export is the first one again; a file that is there is not replaced unasked."""
    first = exported.read_bytes()
    assert qs("bundle", "export", exported.name).returncode == 2
    assert qs("bundle", "export", exported.name, "--force").returncode == 0
    assert exported.read_bytes() == first
    with tarfile.open(exported) as tar:
        assert tar.getnames()[0] == "manifest.json"


def test_an_import_may_be_repeated(exported: Path, elsewhere: CommandLine) -> None:
    """The second import finds all there."""
    elsewhere("bundle", "import", exported.name)
    before = tree(elsewhere.folder / "elsewhere")
    assert "there already" in elsewhere("bundle", "import", exported.name).stdout
    assert tree(elsewhere.folder / "elsewhere") == before


def test_an_import_sweeps_what_a_killed_one_left(exported: Path, elsewhere: CommandLine) -> None:
    """The next import removes the generation that was being built, and has one of its own."""
    left = elsewhere.folder / "elsewhere/generations/.partial-0badcafe/models"
    left.mkdir(parents=True)
    (left / "half").write_bytes(b"half")
    assert elsewhere("bundle", "import", exported.name).returncode == 0
    kept = [path.name for path in (elsewhere.folder / "elsewhere/generations").iterdir()]
    assert len(kept) == 1
    assert not kept[0].startswith(".")


def test_there_must_be_something_to_export(qs: CommandLine) -> None:
    """An empty location exits 3, an unknown kind 2, and images without containers 2."""
    (qs.location / "rmir/mine.rmir").unlink()
    assert qs("bundle", "export", "x.bundle").returncode == 3
    assert qs("bundle", "export", "x.bundle", "--what", "models,cats").returncode == 2
    assert (
        qs("--set", "backend=embedded", "bundle", "export", "x", "--what", "images").returncode == 2
    )
    assert not list(qs.folder.glob("x*"))


def test_a_bundle_needs_its_folder(qs: CommandLine) -> None:
    """A place that does not exist is told before anything is read."""
    done = qs("bundle", "export", "nowhere/x.bundle")
    assert done.returncode == 2
    assert "there is no folder nowhere for the bundle" in done.stderr


def test_damage_is_not_exported(qs: CommandLine) -> None:
    """A deployed file that changed stops an export, which leaves no file behind."""
    qs("init")
    path = qs.location / "models/mine-streaming/config.pbtxt"
    path.chmod(0o644)
    path.write_bytes(path.read_bytes().replace(b"a", b"b"))
    done = qs("bundle", "export", "x.bundle")
    assert done.returncode == 9
    assert "riva-qs verify" in done.stderr
    assert not list(qs.folder.glob("x.bundle*"))


def test_a_user_s_other_archive_is_not_replaced(exported: Path, elsewhere: CommandLine) -> None:
    """An archive of the same name and other content is named, and nothing is changed."""
    theirs = elsewhere.folder / "elsewhere/rmir/mine.rmir"
    theirs.parent.mkdir(parents=True)
    theirs.write_bytes(b"theirs")
    done = elsewhere("bundle", "import", exported.name)
    assert done.returncode == 1
    assert str(theirs) in done.stderr
    assert tree(elsewhere.folder / "elsewhere") == [("rmir/mine.rmir", b"theirs")]


def manifest(change: Callable[[dict[str, Any]], object]) -> Callable[[list[Entry]], list[Entry]]:
    """Return a forger that changes the manifest."""

    def forge(entries: list[Entry]) -> list[Entry]:
        data = json.loads(entries[0][1])
        change(data)
        return [entry("manifest.json", json.dumps(data).encode()), *entries[1:]]

    return forge


def entry(name: str, data: bytes = b"x", kind: bytes = tarfile.REGTYPE, link: str = "") -> Entry:
    info = tarfile.TarInfo(name)
    info.size, info.type, info.linkname = len(data), kind, link
    return info, data


def header(at: int, **fields: str) -> Callable[[list[Entry]], list[Entry]]:
    """Return a forger that writes extended fields into a member's header."""

    def forge(entries: list[Entry]) -> list[Entry]:
        entries[at][0].pax_headers = {f"GNU.sparse.{name}": text for name, text in fields.items()}
        return entries

    return forge


def other_name(name: str) -> Callable[[list[Entry]], list[Entry]]:
    """Return a forger that gives the first file another name, in the manifest too."""

    def forge(entries: list[Entry]) -> list[Entry]:
        renamed = manifest(lambda data: data["members"][0].update(name=name))(entries)
        return [renamed[0], entry(name, entries[1][1]), *entries[2:]]

    return forge


FORGERIES: dict[str, tuple[int, Callable[[list[Entry]], list[Entry]]]] = {
    "another schema": (2, manifest(lambda data: data.update(schema_version=2))),
    "another kind": (2, manifest(lambda data: data.update(kind="cake"))),
    "no manifest": (2, lambda entries: entries[1:]),
    "manifest later": (2, lambda entries: [*entries[1:], entries[0]]),
    "manifest that is a list": (9, lambda e: [entry("manifest.json", b"[]"), *e[1:]]),
    "manifest that is no JSON": (9, lambda e: [entry("manifest.json", b"{"), *e[1:]]),
    "deep manifest": (9, lambda e: [entry("manifest.json", b"[" * 100000), *e[1:]]),
    "wrong hash": (9, manifest(lambda data: data["members"][0].update(sha256="0" * 64))),
    "no hash": (9, manifest(lambda data: data["members"][0].update(sha256="x"))),
    "wrong size": (9, manifest(lambda data: data["members"][0].update(size=3))),
    "endless size": (9, manifest(lambda data: data["members"][0].update(size=1 << 60))),
    "negative size": (9, manifest(lambda data: data["members"][0].update(size=-1))),
    "a name that is a number": (9, manifest(lambda data: data["members"][0].update(name=7))),
    "traversal": (9, other_name("rmir/../../escaped.rmir")),
    "absolute": (9, other_name("/escaped.rmir")),
    "elsewhere": (9, other_name("run/server.json")),
    "hidden": (9, other_name("rmir/.fetched.rmir")),
    "no archive": (9, other_name("rmir/notes.txt")),
    "missing member": (9, lambda entries: [entries[0], *entries[2:]]),
    "extra member": (9, lambda entries: [*entries, entry("extra")]),
    "swapped members": (9, lambda e: [e[0], *reversed(e[1:])]),
    "changed bytes": (9, lambda e: [e[0], entry(e[1][0].name, b"b" + e[1][1][1:]), *e[2:]]),
    "a link": (9, lambda e: [e[0], entry(e[1][0].name, b"", tarfile.SYMTYPE, "/etc"), *e[2:]]),
    "a file twice": (9, manifest(lambda data: data["members"].append(data["members"][0]))),
    "models without a stamp": (9, manifest(lambda data: data.pop("stamp"))),
    "a stamp of other files": (9, manifest(lambda data: data["stamp"].update(files=[]))),
    "a stamp that leads away": (9, manifest(lambda d: d["stamp"].update(generation="../../x"))),
    "files that lead away": (
        9,
        manifest(lambda data: data["stamp"]["files"][0].update(name="../../../escaped")),
    ),
    "a model that is a number": (
        9,
        manifest(lambda data: data["stamp"]["models"][0].update(name=7)),
    ),
    "half a character": (
        9,
        manifest(lambda data: data["stamp"]["files"][0].update(name="a\ud800")),
    ),
    "a manifest with a header of nonsense": (9, header(0, size="x")),
    "a header of nonsense": (9, header(1, size="x")),
    "a header of half a map": (9, header(1, major="1", minor="0")),
    "a map without an end": (9, header(1, map="0,1,5")),
    "unnamed images": (9, manifest(lambda data: data.update(images=[{"member": "i"}]))),
}


@pytest.mark.parametrize("forgery", FORGERIES)
def test_hostile_bundles_change_nothing(
    exported: Path, elsewhere: CommandLine, forgery: str
) -> None:
    """Whatever is wrong with a bundle, it is one error, and the location is as it was."""
    code, forge = FORGERIES[forgery]
    with tarfile.open(exported) as tar:
        entries = [(m, tar.extractfile(m).read()) for m in tar.getmembers()]  # type: ignore[union-attr]  # files
    with tarfile.open(exported, "w") as tar:
        for info, data in forge(entries):
            tar.addfile(info, io.BytesIO(data))
    before = tree(elsewhere.folder / "models-here")
    done = elsewhere("bundle", "import", exported.name)
    assert done.returncode == code, done.stderr
    assert done.stderr.count("error: ") == 1
    assert "Traceback" not in done.stderr
    assert tree(elsewhere.folder / "elsewhere") == []
    assert tree(elsewhere.folder / "models-here") == before
    assert not list(elsewhere.folder.rglob("*escaped*"))


@pytest.mark.parametrize("kept", [0.0, 0.1, 0.5, 0.8, 0.999])
def test_cut_bundles_change_nothing(exported: Path, elsewhere: CommandLine, kept: float) -> None:
    """A bundle that was cut is an error with exit code 2 or 9."""
    whole = exported.read_bytes()
    content = len(whole.rstrip(b"\0"))
    exported.write_bytes(whole[: int(content * kept)])
    done = elsewhere("bundle", "import", exported.name)
    assert done.returncode in {2, 9}
    assert "Traceback" not in done.stderr
    assert tree(elsewhere.folder / "elsewhere") == []


def test_what_is_no_bundle(qs: CommandLine) -> None:
    """A file that is no tar, or a compressed one, or none at all, is told plainly."""
    (qs.folder / "x").write_bytes(b"hello" * 1000)
    assert qs("bundle", "import", "x").returncode == 9
    for wrong in ("nowhere", "."):
        done = qs("bundle", "import", wrong)
        assert done.returncode == 2
        assert "name the file that riva-qs bundle export made" in done.stderr
