"""A start that may leave its container in the state Created: told in two seconds, and limited."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from quickstart.backends.engine.words import is_late
from quickstart.errors import NotReadyError

if TYPE_CHECKING:
    from collections.abc import Callable

    from quickstart.backends.engine import Engine

SUSPICIOUS_AFTER = 1.5
# What NVIDIA's runtime does before the program runs takes seconds on a machine that just came up.
LIMIT = 60


def start(engine: Engine, container: str, report: Callable[[str], None]) -> None:
    """Run the program of a container, and report when the engine takes long to.

    Raises:
        NotReadyError: The container is stuck in Created, or the engine does not answer.
        RivaQsError: The engine cannot.
    """
    failures: list[BaseException] = []

    def ask() -> None:
        """Ask the engine to start it, and keep what comes of that."""
        try:
            engine.start(container, LIMIT)
        except BaseException as error:  # noqa: BLE001 - raised again by the thread that waits
            failures.append(error)

    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(SUSPICIOUS_AFTER)
    if asking.is_alive():
        report(f"{_stuck(engine, container)}; waiting for it up to {LIMIT} s")
        asking.join()
    if failures and isinstance(failures[0], NotReadyError) and is_late(failures[0]):
        hint = "look at `journalctl -u docker`: the container's runtime, or a hook of it, hangs"
        message = f"the engine has not answered a start for {LIMIT} s"
        raise NotReadyError(f"{message}: {_stuck(engine, container)}", hint)
    for failure in failures:
        raise failure


def _stuck(engine: Engine, name: str) -> str:
    """Return what the engine says of a container that it does not start."""
    container = engine.container(name)
    if container is None:
        return f"the container {name} is gone"
    state = container.status.capitalize()
    if container.status != "created":
        return f"the container {container.name} is in the state {state}"
    why = container.error or "the engine does not say why"
    return f"the container {container.name} is stuck in the state {state}: {why}"
