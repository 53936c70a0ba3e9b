"""Model locations on Docker volumes, looked after by the agent in a container."""

from __future__ import annotations

import secrets
import shutil
import subprocess
import time
from typing import TYPE_CHECKING

import pytest

from quickstart.errors import IntegrityError, RivaQsError
from quickstart.files import sha256
from quickstart.store import locking
from support.digits import ARCHIVE, SAID
from support.killing import Killer

from .conftest import docker, hear, store_on

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from quickstart.store import Store

    from .conftest import Place

pytestmark = pytest.mark.docker


@pytest.fixture
def volume() -> Iterator[str]:
    """The name of a volume, which is gone after the test."""
    name = f"riva-qs-test-store-{secrets.token_hex(4)}"
    yield name
    # A container that is just going away still holds its volume.
    for _ in range(50):
        users = docker("ps", "-aq", "--filter", f"volume={name}").split()
        subprocess.run(["docker", "rm", "-f", *users], capture_output=True, check=False)
        command = ["docker", "volume", "rm", "-f", name]
        if subprocess.run(command, capture_output=True, check=False).returncode == 0:
            return
        time.sleep(0.2)


@pytest.fixture
def on_volume(place: Place, volume: str) -> Place:
    """A place whose models are on a volume."""
    path = place.folder / "config.env"
    text = path.read_text().replace("loc=./models-here", f"loc={volume}")
    path.write_text(text.replace("use_existing_rmirs=true", "use_existing_rmirs=false"))
    return place


def test_from_nothing_to_words_and_back(on_volume: Place, volume: str, tmp_path: Path) -> None:
    """init, start, verify, rollback, gc, a bundle and clean work as they do on a folder."""
    assert f"volume {volume}" in on_volume.ok("init", "--dry-run")
    assert volume not in docker("volume", "ls", "-q").split()
    first = on_volume.json("init")["generation"]
    assert on_volume.json("init")["reused"]
    on_volume.ok("start")
    assert hear(on_volume.port), "the model in the box, for another language than digits"
    assert "as they were made" in on_volume.ok("verify")
    on_volume.ok("stop")
    on_volume.ok("bundle", "export", "b.bundle", "--what", "rmirs,models")
    on_volume.ok("clean", "--yes")
    on_volume.ok("bundle", "import", "b.bundle")
    on_volume.ok("bundle", "import", "b.bundle")
    assert on_volume.json("--offline", "init") == {
        **on_volume.json("--offline", "init"),
        "reused": True,
        "generation": first,
    }
    assert not list((tmp_path / "home").rglob("*.rmir")), "nothing stays where downloads wait"


def test_a_volume_that_is_too_small_is_refused(on_volume: Place, volume: str) -> None:
    """A volume has the room that it has, whatever Docker's own disk has; nothing is fetched."""
    options = ["type=tmpfs", "device=tmpfs", "o=size=3m"]
    docker("volume", "create", *(f"--opt={option}" for option in options), volume)
    plan = on_volume("init", "--dry-run")
    assert plan.returncode == 7
    assert f"in the volume {volume}; 3.1 MB are there: that does not fit" in plan.stdout
    assert "nothing was fetched" in on_volume.fails(7, "init")
    assert not list(on_volume.folder.rglob("staged/*"))


def test_an_image_travels_in_a_bundle(deployed: Place) -> None:
    """A bundle has the image with its id; importing it where it is changes nothing."""
    made = deployed.json("bundle", "export", "i.bundle", "--what", "images")
    assert made["members"][0]["name"] == "images/0.tar"
    assert "there" in deployed.ok("bundle", "import", "i.bundle")


def test_any_image_with_python_will_do(volume: str, tmp_path: Path) -> None:
    """Files arrive verified or not at all, and come back as they were."""
    with store_on(volume) as store:
        check_files(store, tmp_path)


def check_files(store: Store, tmp_path: Path) -> None:
    assert store.current() is None
    assert store.archives() == ()
    with store.locked("test"):
        copy = tmp_path / "copy.rmir"
        shutil.copy(ARCHIVE, copy)
        digest = sha256(copy)
        with pytest.raises(IntegrityError):
            store.place.bring(copy, "rmir/a.rmir", copy.stat().st_size, "0" * 64)
        assert store.archives() == ()
        store.place.bring(copy, "rmir/a.rmir", copy.stat().st_size, digest)
    (archive,) = store.archives()
    assert archive.sha256 == digest
    with (tmp_path / "back").open("wb") as sink:
        store.place.read("rmir/a.rmir", sink)
    assert sha256(tmp_path / "back") == digest


def test_the_lock_is_one_for_all(volume: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """While one is at work, another one is told who; the lock falls with its holder."""
    monkeypatch.setattr(locking, "PATIENCE", 0.3)
    with store_on(volume) as first, store_on(volume) as second, first.locked("init"):
        with pytest.raises(RivaQsError, match="riva-qs init"), second.locked("start"):
            pass
        first.place.close()  # type: ignore[attr-defined]  # a volume's has it
        monkeypatch.setattr(locking, "PATIENCE", 60.0)
        with second.locked("start"):
            pass


@pytest.mark.timeout(7200)
def test_a_volume_survives_kills_at_any_moment(
    on_volume: Place, volume: str, speech: str, kills: int
) -> None:
    """After each kill the generation that is shown is whole, and its server hears the sample."""
    environment = dict(on_volume.environment)

    def offer(number: int) -> None:
        for old in on_volume.folder.glob("v*.rmir"):
            old.unlink()
        path = shutil.copy(ARCHIVE, on_volume.folder / f"v{number}.rmir")
        environment["RIVA_QS_MODELS_ASR"] = f"file://{path}#sha256={sha256(ARCHIVE)}"
        drop_archives(volume, speech)

    offer(0)
    killer = Killer(on_volume.command("init"), on_volume.folder, environment)
    killer.whole()
    for number in killer.until(kills, offer):
        with store_on(volume, speech) as store:
            assert store.damage(store.shown()) == []
        try:
            if number % 4 == 0:
                assert SAID in on_volume.ok("start")
        finally:
            on_volume("stop")
    offer(-1)
    killer.whole()
    with store_on(volume, speech) as store:
        assert len(store.generations()) <= 2
        assert [n for n in store.leftovers(keep=9) if ".partial" in n] == []


def drop_archives(volume: str, image: str) -> None:
    """Remove the archives of the run before, as their owner."""
    with store_on(volume, image) as store:
        store.remove([f"rmir/{archive.name}" for archive in store.archives()])
