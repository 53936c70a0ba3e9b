"""The archives of the catalogue, with a copy of the package that has a catalogue of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from support.ngc import PERSONAL, Fault, Model

if TYPE_CHECKING:
    from support.ngc import Ngc

    from .conftest import CommandLine, Package


@pytest.mark.usefixtures("package")
def test_init_fetches_once(qs: CommandLine) -> None:
    """The first init fetches and verifies the artefact, the second one finds it there."""
    plan = qs("init", "--dry-run").stdout
    assert "would fetch test.rmir (11 B)" in plan
    assert not (qs.location / "rmir" / "test.rmir").exists()
    assert "test.rmir: fetched, 11 B, SHA-256 verified" in qs("init").stdout
    again = qs("init").stdout
    assert "test.rmir: there already, reused" in again
    assert "unchanged, reused" in again
    assert (qs.location / "rmir" / "test.rmir").read_bytes() == b"version one"


@pytest.mark.usefixtures("package")
def test_several_archives_of_ngc(qs: CommandLine, ngc: Ngc) -> None:
    """Each of several comes once and whole, whatever happens to one of them on the way."""
    data = {name: name.encode() * 5000 for name in ("one", "two", "three")}
    models = [Model({f"{name}.rmir": text}, name=f"rmir_{name}") for name, text in data.items()]
    for model in models:
        ngc.offer(model)
    ngc.fail(Fault("cut", path="two", value=1000), Fault("status", path="one", value=503))
    qs.options += ["--set", f"models_asr={' '.join(model.target for model in models)}"]
    done = qs("init", **ngc.environment, NGC_API_KEY=PERSONAL)
    assert done.returncode == 0, done.stderr
    rmir = qs.location / "rmir"
    assert {path.stem: path.read_bytes() for path in rmir.glob("*.rmir")} == data
    assert {name.removesuffix(".rmir"): sent for name, sent in ngc.sent.items()} == {
        name: len(text) for name, text in data.items()
    }
    assert all(f"{name}.rmir: fetched" in done.stdout for name in data)
    assert PERSONAL not in done.stdout + done.stderr


def test_a_model_is_replaced_by_data_alone(qs: CommandLine, package: Package) -> None:
    """When the catalogue has another file, init fetches and deploys it."""
    first = qs.json("init")["generation"]
    package.offer(b"version two", "2")
    second = qs.json("init")
    assert second["generation"] != first
    assert (qs.location / "rmir" / "test.rmir").read_bytes() == b"version two"


@pytest.mark.usefixtures("package")
def test_a_file_of_the_user_is_not_replaced(qs: CommandLine) -> None:
    """A user's archive that has the name of an artefact is named, and left as it is."""
    theirs = qs.location / "rmir" / "test.rmir"
    theirs.write_bytes(b"theirs")
    done = qs("init")
    assert done.returncode == 1
    assert str(theirs) in done.stderr
    assert "move it away" in done.stderr
    qs("clean", "--yes")
    assert theirs.read_bytes() == b"theirs"


def test_a_damaged_artefact_is_not_deployed(qs: CommandLine, package: Package) -> None:
    """Bytes that are not those of the catalogue exit 9, and no part of them stays."""
    (package.artifacts / "test.rmir").write_bytes(b"version 0ne")
    done = qs("init")
    assert done.returncode == 9
    assert "test.rmir is not the file that was promised" in done.stderr
    assert not list((qs.location / "rmir").glob("test*"))
    assert not (qs.location / "generations").exists()


def test_a_lost_artefact_is_told(qs: CommandLine, package: Package) -> None:
    """An installation without its artefact says so with exit code 3."""
    (package.artifacts / "test.rmir").unlink()
    done = qs("init")
    assert done.returncode == 3
    assert "this installation lacks test.rmir" in done.stderr


@pytest.mark.usefixtures("package")
def test_clean_removes_what_was_fetched(qs: CommandLine) -> None:
    """clean removes the fetched archive, and keeps the user's beside it."""
    qs("init")
    (qs.location / "rmir" / "mine.rmir").write_bytes(b"mine")
    assert qs("clean", "--yes").returncode == 0
    assert [path.name for path in qs.location.rglob("*")] == ["rmir", "mine.rmir"]


@pytest.mark.usefixtures("package")
def test_everything_goes_when_nothing_is_the_user_s(qs: CommandLine) -> None:
    """clean leaves no empty folder behind."""
    qs("init")
    assert qs("clean", "--yes").returncode == 0
    assert not qs.location.exists()
