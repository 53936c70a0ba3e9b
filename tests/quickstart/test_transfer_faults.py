"""Transfers against a server that does what servers do."""

from __future__ import annotations

import hashlib
import random
import re
import time
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from quickstart import transfer
from quickstart.errors import IntegrityError, NetworkError, NotAuthorisedError, RivaQsError
from quickstart.transfer.partial import STATE
from support import fetching
from support.fetching import ARTIFACT, HASTY, LIMITS, STEP, described, fetch
from support.ngc import Fault, Model, Ngc

if TYPE_CHECKING:
    from pathlib import Path

DATA = random.Random(7).randbytes(20 * STEP + 1234)


@pytest.fixture
def target(ngc: Ngc, tmp_path: Path) -> Path:
    """Where the stand-in's only file goes."""
    ngc.offer(Model({"a.rmir": DATA}))
    return tmp_path / "rmir" / "a.rmir"


def alone(target: Path) -> bool:
    """Say whether nothing lies beside a target."""
    return {path.name for path in target.parent.iterdir()} <= {target.name}


def test_a_file_comes_in_ranges(ngc: Ngc, target: Path) -> None:
    """Each byte is sent once, in ranges, without our key, and counted once."""
    seen = fetch(target)
    blobs = ngc.asked("/blob/")
    assert target.read_bytes() == DATA
    assert alone(target)
    assert sum(seen) == ngc.sent["a.rmir"] == len(DATA)
    assert len(blobs) == 21
    assert all("Authorization" not in request.headers for request in blobs)
    assert len(ngc.asked("/1.0/files")) == 1 + 1


RECOVERED = {
    "busy": [Fault("status", value=429, header="0", times=3)],
    "busy and says when to come back": [Fault("status", value=429, header="1")],
    "broken": [Fault("status", value=500, times=2), Fault("status", value=503, times=2)],
    "cut": [Fault("cut", value=20_000, times=6)],
    "cut at once": [Fault("cut", value=0, times=2)],
    "reset": [Fault("reset", times=3)],
    "a link that expires": [Fault("expire", skip=5)],
    "links that expire again and again": [Fault("expire", skip=n) for n in (3, 9, 14)],
    "no ranges": [Fault("ignore_range", times=-1)],
    "no ranges any more": [Fault("ignore_range", times=-1, skip=4)],
    "no ranges, and cut": [
        Fault("ignore_range", times=-1),
        Fault("cut", value=8 * STEP, times=1, skip=8),
        Fault("cut", value=12 * STEP, times=1, skip=8),
    ],
    "another range": [Fault("shifted", times=2)],
    "busy when it makes links": [Fault("status", path="test/1.0/files", value=503, header="0")],
}


@pytest.mark.parametrize("faults", RECOVERED.values(), ids=RECOVERED.keys())
def test_what_passes_is_waited_for(ngc: Ngc, target: Path, faults: list[Fault]) -> None:
    """A fault that ends leaves no trace but time."""
    ngc.fail(*(Fault(**vars(fault)) for fault in faults))
    assert sum(fetch(target)) == len(DATA)
    assert target.read_bytes() == DATA
    assert alone(target)


def test_a_drip_is_not_waited_for(ngc: Ngc, target: Path) -> None:
    """A connection that gives next to nothing is broken off, and another one takes its place."""
    ngc.fail(Fault("drip", value=20, times=1))
    assert sum(fetch(target, limits=HASTY)) == len(DATA)
    assert target.read_bytes() == DATA


def test_silence_is_not_waited_for(ngc: Ngc, target: Path) -> None:
    """A connection that gives nothing is given up, and another one takes its place."""
    ngc.fail(Fault("silence", times=1))
    assert sum(fetch(target, silence=2.0)) == len(DATA)
    assert target.read_bytes() == DATA


@pytest.mark.usefixtures("target")
def test_what_is_aborted_gives_nothing() -> None:
    """What was on its way when a connection was broken off is never taken for the file's bytes."""
    here, file = described()
    with here.open(ARTIFACT, file, 0, file.size) as body:
        assert body.readinto(memoryview(bytearray(100))) == 100
        body.abort()
        with pytest.raises(NetworkError, match="broken off"):
            body.readinto(memoryview(bytearray(STEP)))


def test_retry_after_is_obeyed(ngc: Ngc, target: Path) -> None:
    """Who asks to wait a second is not asked again before."""
    ngc.fail(Fault("status", value=429, header="1", times=1))
    before = time.monotonic()
    fetch(target)
    assert time.monotonic() - before >= 1


FATAL = {
    "broken for good": (Fault("status", value=500, times=-1), NetworkError, "answers 500"),
    "back in an hour": (
        Fault("status", value=503, header="3600", times=-1),
        NetworkError,
        "come back in 3600 s",
    ),
    "reset for good": (Fault("reset", times=-1), NetworkError, "broke the connection off"),
    "cut for good": (Fault("cut", value=100, times=-1), NetworkError, "broke"),
    "wrong bytes": (Fault("corrupt", value=5 * STEP + 3, times=-1), IntegrityError, "SHA-256"),
    "another file": (Fault("resized", times=-1), IntegrityError, "was said to have"),
    "no link is good": (Fault("expire", times=-1), NotAuthorisedError, "new links are refused"),
    "a portal": (Fault("html", times=-1), IntegrityError, "was said to have"),
    "a circle": (
        Fault("redirect", times=-1),
        NetworkError,
        "redirects in a circle",
    ),
}


@pytest.mark.parametrize(("fault", "kind", "words"), FATAL.values(), ids=FATAL.keys())
def test_what_does_not_pass_is_told(
    ngc: Ngc, target: Path, fault: Fault, kind: type[RivaQsError], words: str
) -> None:
    """A fault that lasts is a clear error in bounded time, and no file has the name."""
    ngc.fail(Fault(**vars(fault)))
    with pytest.raises(kind, match=words) as caught:
        fetch(target)
    assert caught.value.hint
    assert "Signature" not in caught.value.message + caught.value.hint
    assert not target.exists()
    if kind is IntegrityError:
        assert alone(target)


def test_a_drip_for_good_is_told(ngc: Ngc, target: Path) -> None:
    """Who gives next to nothing, however often it is asked, is given up."""
    ngc.fail(Fault("drip", value=20, times=-1))
    with pytest.raises(NetworkError, match="next to nothing"):
        fetch(target, limits=HASTY)
    assert not target.exists()


def test_wrong_bytes_leave_what_was_there(ngc: Ngc, target: Path) -> None:
    """A file from before stays when what comes is not what was promised."""
    target.parent.mkdir()
    target.write_bytes(b"before")
    ngc.fail(Fault("corrupt", value=9, times=-1))
    with pytest.raises(IntegrityError):
        fetch(target)
    assert target.read_bytes() == b"before"
    assert alone(target)


def test_a_redirect_to_another_host_takes_no_key(ngc: Ngc, target: Path) -> None:
    """Where the API redirects to another host, our key stays behind."""
    ngc.fail(Fault("redirect", path="/1.0/files", header=ngc.blobs.url, times=1))
    with pytest.raises(RivaQsError):
        fetch(target)
    (there,) = [r for r in ngc.asked("/1.0/files") if r.host == "localhost"]
    assert "Authorization" not in there.headers


def test_a_file_may_be_redirected(ngc: Ngc, target: Path) -> None:
    """The download host may send us to a mirror of it, for each range anew."""
    mirror = ngc.blobs.url.replace("localhost", "127.0.0.1")
    ngc.fail(Fault("redirect", header=mirror, times=1))
    fetch(target)
    assert target.read_bytes() == DATA


def interrupted(ngc: Ngc, target: Path) -> int:
    """Fetch with a server that breaks down; return how many bytes the journal says are there."""
    ngc.fail(Fault("status", value=500, times=-1, skip=12))
    with pytest.raises(NetworkError):
        fetch(target)
    fetching.settle()
    ngc.faults.clear()
    ngc.sent.clear()
    return sum(min(STEP, len(DATA) - number * STEP) for number in arrived(target))


def arrived(target: Path) -> list[int]:
    """Return the numbers of the ranges that the journal says are there."""
    lines = target.with_name(target.name + STATE).read_text().splitlines()[1:]
    numbers = sorted({int(line.split()[0]) for line in lines})
    assert numbers
    return numbers


def test_the_next_call_goes_on(ngc: Ngc, target: Path) -> None:
    """A second call fetches what is missing and no more, and progress still tells all."""
    there = interrupted(ngc, target)
    assert sum(fetch(target)) == len(DATA)
    assert ngc.sent["a.rmir"] == len(DATA) - there
    assert target.read_bytes() == DATA
    assert alone(target)


@pytest.mark.parametrize("damage", ["the first", "the last", "shorter", "gone"])
@pytest.mark.parametrize("hashed", [True, False])
def test_garbage_is_not_trusted(ngc: Ngc, target: Path, damage: str, *, hashed: bool) -> None:
    """What the disk has lost is found, with hashes in the journal or without, and fetched again."""
    there = interrupted(ngc, target)
    part, state = target.with_name("a.rmir.partial"), target.with_name("a.rmir" + STATE)
    if not hashed:
        state.write_text(re.sub(r"(?m)^(\d+) [0-9a-f]{64}$", r"\1 -", state.read_text()))
    numbers = arrived(target)
    with part.open("r+b") as stream:
        stream.seek((numbers[-1] if damage == "the last" else numbers[0]) * STEP + 100)
        stream.truncate() if damage == "shorter" else stream.write(b"garbage")
    if damage == "gone":
        part.unlink()
    assert sum(fetch(target)) == len(DATA)
    assert target.read_bytes() == DATA
    assert ngc.sent["a.rmir"] > len(DATA) - there
    if damage == "the first" and hashed:
        assert ngc.sent["a.rmir"] <= len(DATA) - there + STEP


@pytest.mark.parametrize("text", ["", "not JSON\n1 2 3\n", "{}\n0 00000000\n"])
def test_a_journal_of_something_else_begins_anew(ngc: Ngc, target: Path, text: str) -> None:
    """What is not our journal, or that of another version, counts for nothing."""
    interrupted(ngc, target)
    target.with_name("a.rmir" + STATE).write_text(text)
    fetch(target)
    assert target.read_bytes() == DATA
    assert ngc.sent["a.rmir"] == len(DATA)


def test_a_torn_journal_loses_its_last_line(ngc: Ngc, target: Path) -> None:
    """A line that a power cut left unfinished costs one range."""
    there = interrupted(ngc, target)
    state = target.with_name("a.rmir" + STATE)
    state.write_text(state.read_text()[:-3])
    fetch(target)
    assert target.read_bytes() == DATA
    assert ngc.sent["a.rmir"] <= len(DATA) - there + STEP


def test_a_new_version_does_not_mix_with_the_old(ngc: Ngc, target: Path) -> None:
    """What arrived of another content is not taken for the new one."""
    interrupted(ngc, target)
    newer = DATA[::-1]
    ngc.models[0].files["a.rmir"] = newer
    fetch(target)
    assert target.read_bytes() == newer


def test_several_files_at_once(ngc: Ngc, target: Path) -> None:
    """Files come side by side over the same connections, and progress adds up."""
    files = {f"{n}.rmir": DATA[n * 1000 :] for n in range(6)}
    ngc.models[0].files = {**files, "empty": b""}
    here, seen = fetching.source(), list[int]()
    listed = here.files(ARTIFACT)
    jobs = [transfer.Job(here, ARTIFACT, file, target.with_name(file.name)) for file in listed]
    transfer.fetch_all(jobs, seen.append, LIMITS)
    assert all(target.with_name(name).read_bytes() == data for name, data in files.items())
    assert target.with_name("empty").read_bytes() == b""
    assert sum(seen) == sum(file.size for file in listed)


def test_one_file_s_failure_is_that_of_all(ngc: Ngc, target: Path) -> None:
    """When one of several files cannot be had, the error names it, and none is wrong."""
    ngc.models[0].files = {"good.rmir": DATA, "bad.rmir": DATA[::-1]}
    ngc.fail(Fault("corrupt", path="bad", value=3, times=-1))
    here = fetching.source()
    listed = here.files(ARTIFACT)
    jobs = [transfer.Job(here, ARTIFACT, file, target.with_name(file.name)) for file in listed]
    with pytest.raises(IntegrityError, match=r"bad\.rmir"):
        transfer.fetch_all(jobs, lambda _: None, LIMITS)
    assert not target.with_name("bad.rmir").exists()


def test_what_is_there_is_not_fetched(ngc: Ngc, target: Path) -> None:
    """A target that is the file already costs no byte."""
    target.parent.mkdir()
    target.write_bytes(DATA)
    assert sum(fetch(target)) == len(DATA)
    assert not ngc.sent
    assert alone(target)


FAULTS = st.builds(
    Fault,
    kind=st.sampled_from(
        ["status", "ignore_range", "cut", "corrupt", "reset", "shifted", "resized", "expire"]
    ),
    path=st.sampled_from(["/blob/", "/blob/", "test/1.0/files"]),
    times=st.sampled_from([1, 1, 2, 4, -1]),
    value=st.sampled_from([429, 500, 503, 403, 404, 416, 400]),
    header=st.sampled_from(["", "0", "9999"]),
    skip=st.integers(0, 12),
)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(schedule=st.lists(FAULTS, max_size=4))
def test_no_schedule_of_faults_makes_a_wrong_file(
    ngc: Ngc, tmp_path: Path, schedule: list[Fault]
) -> None:
    """Whatever goes wrong, the end is the right file or a clear error; and then it can go on."""
    ngc.reset()
    digest = hashlib.sha256(repr(schedule).encode()).hexdigest()[:12]
    target = tmp_path / digest / "a.rmir"
    ngc.offer(Model({"a.rmir": DATA[: 6 * STEP + 99]}))
    here, file = described()
    ngc.fail(*schedule)
    with suppress(RivaQsError):
        transfer.fetch(here, ARTIFACT, file, target, lambda _: None, LIMITS)
    assert not target.exists() or target.read_bytes() == DATA[: 6 * STEP + 99]
    ngc.faults.clear()
    transfer.fetch(here, ARTIFACT, file, target, lambda _: None, LIMITS)
    assert target.read_bytes() == DATA[: 6 * STEP + 99]
    assert alone(target)


def test_what_one_test_leaves_is_not_counted_in_the_next(ngc: Ngc, target: Path) -> None:
    """The stand-in forgets only when nothing is being answered any more, to whoever has left."""
    ngc.fail(Fault("drip", value=8 * STEP, times=-1))
    here, file = described()
    with here.open(ARTIFACT, file, 0, file.size) as body:
        assert body.readinto(memoryview(bytearray(100))) == 100
    ngc.reset()
    assert not ngc.sent
    assert not target.exists()
