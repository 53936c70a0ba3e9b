"""Bundles on a real engine: images go where they are not, and models into volumes without one."""

from __future__ import annotations

import io
import secrets
import subprocess
import tarfile
from typing import TYPE_CHECKING

import pytest

from support.digits import SAID
from support.killing import Killer

from .conftest import PYTHON, docker, store_on

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .conftest import Place

pytestmark = pytest.mark.docker


@pytest.fixture
def name() -> Iterator[str]:
    """The name of an image, which is gone after the test."""
    name = f"riva-qs-test/travels:{secrets.token_hex(4)}"
    yield name
    subprocess.run(["docker", "rmi", "-f", name], capture_output=True, check=False)


def there(name: str) -> bool:
    """Say whether the engine has an image."""
    command = ["docker", "image", "inspect", name]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def make(name: str) -> str:
    """Make an image that no other shares a byte with; return its id."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as tar:
        info = tarfile.TarInfo("unique")
        info.size = 32
        tar.addfile(info, io.BytesIO(secrets.token_bytes(32)))
    docker("import", "--platform", "linux/amd64", "-", name, stdin=content.getvalue())
    return docker("image", "inspect", "--format", "{{.Id}}", name)


def test_an_image_goes_where_it_is_not(place: Place, name: str) -> None:
    """An engine that has nothing of a bundle's image has it after the import, the very same."""
    made = make(name)
    place.configure(image_speech_api=name)
    place.ok("bundle", "export", "i.bundle", "--what", "images")
    docker("rmi", name)
    assert not there(made)
    assert name in place.ok("bundle", "import", "i.bundle", "--dry-run")
    assert not there(made)
    place.ok("bundle", "import", "i.bundle")
    assert docker("image", "inspect", "--format", "{{.Id}}", name) == made


def test_an_image_under_a_name_that_another_has(place: Place, name: str) -> None:
    """The bundle's image takes its name, whatever the engine calls so."""
    made = make(name)
    place.configure(image_speech_api=name)
    place.ok("bundle", "export", "i.bundle", "--what", "images")
    docker("rmi", name)
    other = make(name)
    place.ok("bundle", "import", "i.bundle")
    assert docker("image", "inspect", "--format", "{{.Id}}", name) == made
    docker("rmi", other)


def test_a_volume_needs_no_image_before_its_bundle(volume: Place, speech: str, name: str) -> None:
    """Image and models of one bundle come to a host that has neither, and serve there."""
    docker("tag", speech, name)
    volume.configure(image_speech_api=name)
    volume.ok("init")
    volume.ok("bundle", "export", "all.bundle")
    volume.ok("clean", "--yes")
    docker("rmi", name)
    assert name in volume.fails(3, "init")
    docker("volume", "create", volume.name)
    assert "once the image is there" in volume.ok("bundle", "import", "--dry-run", "all.bundle")
    volume.ok("bundle", "import", "all.bundle")
    assert SAID in volume.ok("start")
    volume.ok("stop")


@pytest.mark.timeout(1200)
def test_an_import_into_a_volume_survives_kills(volume: Place, speech: str) -> None:
    """After each kill what the volume shows is whole; then the import goes through, and serves."""
    imported = volume.json("init")["generation"]
    volume.ok("bundle", "export", "b.bundle", "--what", "models")
    volume.configure(keep_generations=2)
    docker(
        "run",
        "--rm",
        f"--volume={volume.name}:/data",
        PYTHON,
        "mv",
        "/data/rmir/mine.rmir",
        "/data/rmir/before.rmir",
    )
    before = volume.json("init")["generation"]
    command = volume.command("bundle", "import", "b.bundle")
    killer = Killer(command, volume.folder, volume.environment)

    def forget(_number: int) -> None:
        """Make the import have all to do again."""
        with store_on(volume.name, speech) as store:
            store.switch_to(before)
            store.remove([f"generations/{imported}"])

    forget(0)
    killer.whole()
    for _ in killer.until(4, forget):
        with store_on(volume.name, speech) as store:
            assert store.damage(store.shown()) == []
            assert store.shown() in {before, imported}
    forget(0)
    killer.whole()
    assert SAID in volume.ok("start")
    assert "nothing to remove" in volume.ok("gc", "--keep", "2")
