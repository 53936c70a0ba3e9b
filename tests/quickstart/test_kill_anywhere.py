"""Whatever is killed, at whatever moment, the last good generation still starts."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from quickstart.store import Store

if TYPE_CHECKING:
    from .conftest import CommandLine, Package

# Runs riva-qs and kills it with SIGKILL just before the n-th of the calls that change the disk.
KILLER = """
import os, pathlib, signal, sys
left = int(sys.argv[1])
changes = {"open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.symlink", "os.truncate",
           "shutil.rmtree", "subprocess.Popen"}
def hook(event, arguments):
    global left
    if event not in changes or (event == "open" and (not isinstance(arguments[1], str)
            or arguments[1].strip("bt") in ("r", ""))):
        return
    if event == "open" and here not in os.path.abspath(os.fsdecode(arguments[0])):
        return
    left -= 1
    if left < 0:
        os.kill(os.getpid(), signal.SIGKILL)
here = sys.argv[2]
sys.argv[:] = ["riva-qs", *sys.argv[3:]]
from quickstart.cli import main
sys.addaudithook(hook)
main()
"""


def run_killed(qs: CommandLine, number: int, *arguments: str) -> int:
    """Run riva-qs, killed at its n-th change; return its exit code."""
    command = [sys.executable, "-c", KILLER, str(number), str(qs.location), *arguments]
    done = subprocess.run(
        command, cwd=qs.folder, env=qs.environment, capture_output=True, check=False
    )
    return done.returncode


@pytest.mark.timeout(1200)
def test_init_may_be_killed_anywhere(qs: CommandLine) -> None:
    """After a kill at any change that init makes, `models` is the old or the new generation."""
    qs("init")
    seen = set()
    for number in range(200):
        (qs.location / "rmir" / "mine.rmir").write_bytes(b"archive %d" % number)
        code = run_killed(qs, number, "init")
        served = qs.json("start", "--dry-run")
        assert served["steps"], "what is deployed can be started"
        stamp = (qs.location / "models").resolve().parent / "stamp.json"
        seen.add(stamp.read_text())
        if code == 0:
            break
        assert code == -signal.SIGKILL
    assert code == 0, "init was let through in the end"
    assert number > 8, "there were several moments to kill it"
    assert len(seen) > 1
    assert len(list((qs.location / "generations").iterdir())) <= 2
    assert not list(qs.location.glob("**/*.partial*"))
    assert qs("start").returncode == 0


@pytest.mark.timeout(1200)
def test_a_fetch_may_be_killed_anywhere(qs: CommandLine, package: Package) -> None:
    """After a kill at any change, rmir/ has no part of a file under its name, and init works."""
    fetched = qs.location / "rmir" / "test.rmir"
    for number in range(200):
        versions = [b"version %d" % n for n in (number - 1, number)]
        package.offer(versions[1])
        code = run_killed(qs, number, *qs.options, "init")
        assert not fetched.exists() or fetched.read_bytes() in versions
        assert qs("init").returncode == 0
        assert fetched.read_bytes() == versions[1]
        if code == 0:
            break
    assert code == 0


@pytest.mark.parametrize("verb", ["start", "stop"])
def test_start_and_stop_may_be_killed_anywhere(qs: CommandLine, verb: str) -> None:
    """After a kill at any change, the same verb ends well, and one server runs or none."""
    qs("init")
    for number in range(50):
        if verb == "stop":
            assert qs("start").returncode == 0
        code = run_killed(qs, number, verb)
        assert qs(verb).returncode == 0
        assert qs("status").returncode == (0 if verb == "start" else 6)
        qs("stop")
        if code == 0:
            break
    assert code == 0


def test_clean_may_be_killed_anywhere(qs: CommandLine) -> None:
    """After a kill at any change that clean makes, the user's archive is there, and clean works."""
    for number in range(50):
        qs("init")
        code = run_killed(qs, number, "clean", "--yes")
        assert (qs.location / "rmir" / "mine.rmir").read_bytes() == b"an archive"
        if code == 0:
            break
    assert qs("clean", "--yes").returncode == 0
    assert os.listdir(qs.location) == ["rmir"]  # noqa: PTH208 - names


@pytest.mark.timeout(1200)
def test_an_import_may_be_killed_anywhere(qs: CommandLine) -> None:
    """After a kill at any change that an import makes, whole models are shown, old or new."""
    qs("init")
    qs("bundle", "export", "b.bundle")
    qs("clean", "--yes")
    (qs.location / "rmir" / "mine.rmir").rename(qs.location / "rmir" / "before.rmir")
    qs("init")
    before = qs.location.rename(qs.folder / "before")
    store, seen = Store(qs.location), set()
    for number in range(200):
        shutil.rmtree(qs.location, ignore_errors=True)
        shutil.copytree(before, qs.location, symlinks=True)
        code = run_killed(qs, number, "bundle", "import", "b.bundle")
        assert store.damage(store.shown()) == []
        assert (qs.location / "rmir" / "before.rmir").read_bytes() == b"an archive"
        seen.add(store.shown())
        if code == 0:
            break
        assert code == -signal.SIGKILL
    assert code == 0, "the import was let through in the end"
    assert len(seen) == 2
    assert qs("start").returncode == 0
