"""Who killed a container: the kernel, for its memory, or somebody who asked the engine."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

import pytest

from quickstart.backends import engine as engines
from quickstart.backends.docker.verdicts import KILLED, after_its_end

from .conftest import PYTHON, docker

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.docker


@pytest.fixture
def name(speech: str, request: pytest.FixtureRequest) -> Iterator[str]:
    """A container that sleeps; the test's parameter says how much memory it may take."""
    name = f"riva-qs-test-{secrets.token_hex(4)}"
    limit = [f"--memory={request.param}"] if request.param else []
    docker("run", "--detach", f"--name={name}", *limit, "--entrypoint=sleep", speech, "600")
    yield name
    docker("rm", "--force", name)


def kill_unasked(name: str) -> None:
    """Kill a container as the kernel does, when the engine does not hear why."""
    kill = f"import os; os.kill({docker('inspect', '--format={{.State.Pid}}', name)}, 9)"
    docker("run", "--rm", "--pid=host", "--user=0", PYTHON, "python3", "-c", kill)
    docker("wait", name)


def is_out_of_memory(name: str) -> bool:
    """Return what is made of a container that was killed."""
    container = after_its_end(engines.connect(), name)
    assert container
    assert container.exit_code == KILLED
    return container.oom_killed


@pytest.mark.parametrize("name", ["64m"], indirect=True)
def test_a_kill_that_nobody_asked_for_was_for_the_memory_that_is_limited(name: str) -> None:
    """A busy engine may never hear that the kernel killed a container for its memory."""
    kill_unasked(name)
    assert is_out_of_memory(name)


@pytest.mark.parametrize("name", ["64m"], indirect=True)
@pytest.mark.parametrize("command", [("kill",), ("stop", "--time=0")])
def test_a_kill_that_the_engine_was_asked_for(name: str, command: tuple[str, ...]) -> None:
    """It is not blamed on memory, limited as that is."""
    docker(*command, name)
    assert not is_out_of_memory(name)


@pytest.mark.parametrize("name", [""], indirect=True)
def test_a_kill_where_memory_is_not_limited(name: str) -> None:
    """What the engine does not say of a container without a limit is not made up."""
    kill_unasked(name)
    assert not is_out_of_memory(name)
