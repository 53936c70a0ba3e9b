"""Whether it fits is known before a byte moves: what `init` needs, against what is there."""

from __future__ import annotations

import shlex
import subprocess
from typing import TYPE_CHECKING

import pytest

from quickstart.transfer import size_text

if TYPE_CHECKING:
    from pathlib import Path

    from .conftest import CommandLine, Package

MIB = 1 << 20
# A mount that nobody else sees, and that ends with its command.
APART = ["unshare", "--map-root-user", "--mount", "sh", "-c"]


def on_a_disk_of(size: int, qs: CommandLine, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run riva-qs where its location is an empty disk; then list the files that are there."""
    place = shlex.quote(str(qs.location))
    mount = f"mount -t tmpfs -o size={size} none {place}"
    listed = f"find {place} -type f -size +0 -printf 'file %P\\n'"
    script = (
        f"{mount} && {{ {shlex.join(qs.command(*arguments))}; code=$?; {listed}; exit $code; }}"
    )
    return subprocess.run(
        [*APART, script],
        cwd=qs.folder,
        env=qs.environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.fixture
def mounts(tmp_path: Path) -> None:
    """Skips the test where a user may not mount anything, not even for one command."""
    try:
        command = [*APART, f"mount -t tmpfs none {shlex.quote(str(tmp_path))}"]
        subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    except FileNotFoundError:
        pytest.skip("there is no unshare")
    except subprocess.CalledProcessError as error:
        pytest.skip(f"no file system can be mounted: {error.stderr.strip()}")


def test_a_dry_run_names_everything(qs: CommandLine, package: Package) -> None:
    """`init --dry-run --json` has every artefact with version and size, and what is needed."""
    data = qs.json("init", "--dry-run")
    (artifact,) = data["artifacts"]
    assert (artifact["name"], artifact["version"], artifact["source"]) == ("test", "1", "embedded")
    assert artifact["files"][0]["there"] is False
    assert data["download"] == 11
    assert {need["what"] for need in data["needs"]} == {"disk", "memory"}
    assert data["fits"]
    qs("init")
    data = qs.json("init", "--dry-run")
    assert data["steps"] == []
    assert data["artifacts"][0]["files"][0]["there"] is True
    package.offer(b"version two", "2")
    assert qs.json("init", "--dry-run")["artifacts"][0]["version"] == "2"


def test_what_cannot_fit_is_refused_before_a_byte_moves(qs: CommandLine, package: Package) -> None:
    """A download larger than the disk is exit code 7, and nothing is fetched or touched."""
    generation = qs.json("init")["generation"]
    package.claim(1 << 60)
    plan = qs("init", "--dry-run")
    assert plan.returncode == 7
    assert "that does not fit" in plan.stdout
    done = qs("init")
    assert done.returncode == 7
    assert "does not fit" in done.stderr
    assert not list(qs.location.rglob("*.partial*"))
    assert (qs.location / "rmir/test.rmir").read_bytes() == b"version one"
    assert (qs.location / "models").resolve().parent.name == generation


@pytest.mark.usefixtures("mounts")
def test_a_small_disk_is_refused_with_its_numbers(qs: CommandLine, package: Package) -> None:
    """Three times an archive and a spare do not fit on 128 MiB: exit 7, and nothing is written."""
    package.claim(40 * MIB)
    done = on_a_disk_of(128 * MIB, qs, "init")
    assert done.returncode == 7, done.stderr
    needed, free = size_text((3 * 40 + 64) * MIB), size_text(128 * MIB)
    assert f"{needed} of disk in {qs.location}; {free} are there: that does not fit" in done.stderr
    assert "nothing was fetched" in done.stderr
    assert not [line for line in done.stdout.splitlines() if "rmir" in line or "models" in line]


@pytest.mark.usefixtures("mounts")
def test_a_small_disk_is_used_as_far_as_it_goes(qs: CommandLine, package: Package) -> None:
    """On the same disk what is small enough is fetched, deployed and shown."""
    package.offer(b"a small archive")
    done = on_a_disk_of(128 * MIB, qs, "init")
    assert done.returncode == 0, done.stderr
    assert "file rmir/test.rmir" in done.stdout.splitlines()
