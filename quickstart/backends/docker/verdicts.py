"""What a container says of the server, or of the deploy, that is or was in it."""

from __future__ import annotations

import re
import signal
import time
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from quickstart import log
from quickstart.backends import plan
from quickstart.backends.base import Exit, Running
from quickstart.backends.ending import explain
from quickstart.errors import OutOfResourceError, RivaQsError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from quickstart.backends.engine import Container, Engine

SIGNALLED = 128
KILLED = SIGNALLED + signal.SIGKILL
_LOOKS, _PAUSE = 5, 0.1
# How many seconds after a container's end a busy engine may tell that it was asked for.
_ASKED_WITHIN = 2.0
STORE, ROLE = f"{plan.LABEL}.store", f"{plan.LABEL}.role"
_NOTES = ("uri", "generation", "spec")


def is_ours(container: Container) -> bool:
    """Say whether riva-qs made a container."""
    return ROLE in container.labels


def running_in(container: Container) -> Running:
    """Return the server that runs in a container, from its labels."""
    labels = {name: container.labels.get(f"{plan.LABEL}.{name}", "") for name in _NOTES}
    return Running(
        pid=container.pid,
        uri=labels["uri"],
        generation=labels["generation"],
        digest=labels["spec"],
        started_at=container.started_at,
        container=container.name,
    )


def after_its_end(engine: Engine, name: str) -> Container | None:
    """Return what is known of a container that ended.

    An engine hears of the kernel's kill for memory apart from the end that it brought: maybe later,
    so that a container that was killed is looked at again, and on a busy machine never. Then a kill
    that nobody asked the engine for, of a container whose memory is limited, is taken for one.
    """
    container = engine.container(name)
    for _ in range(_LOOKS):
        if container is None or container.oom_killed or container.exit_code != KILLED:
            return container
        time.sleep(_PAUSE)
        container = engine.container(name)
    if container and container.memory_limit and not _was_told_to_kill(engine, container):
        return replace(container, oom_killed=True)
    return container


def _was_told_to_kill(engine: Engine, container: Container) -> bool:
    """Return whether somebody asked the engine for the end of a container."""
    began, ended = posix(container.started_at), posix(container.finished_at)
    if began is None or ended is None:
        return False
    return engine.was_told_to_kill(container.id, began, ended + _ASKED_WITHIN)


def ending(container: Container | None, lines: Sequence[str], who: str) -> Exit:
    """Return why a container ended: what the engine says of it, else what its program said."""
    if container is None:
        return Exit(None, f"the container of {who} is gone: somebody removed it")
    if container.oom_killed:
        hint = "raise container_memory, or use a machine with more memory"
        return Exit(OutOfResourceError.code, f"{who} was killed: out of memory", hint)
    if container.error:
        return Exit(None, f"the container {container.name} does not run: {container.error}")
    if container.status == "created":
        hint = f"docker start {container.name} shows what the engine says"
        return Exit(None, f"the container {container.name} was made and never ran", hint)
    code = container.exit_code
    was_signalled = code - SIGNALLED in signal.valid_signals()
    return explain(SIGNALLED - code if was_signalled else code, lines, who)


def posix(stamp: str) -> float | None:
    """Return the POSIX time of an engine's time, whose fractions have nine digits."""
    with suppress(ValueError, RivaQsError):
        return log.parse_since(re.sub(r"(\.\d{6})\d*", r"\1", stamp))
    return None
