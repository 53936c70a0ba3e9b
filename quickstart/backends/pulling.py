"""Fetching an image, with its progress, and trying again only where that can help."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from quickstart.errors import (
    ArtifactMissingError,
    NotAuthorisedError,
    RivaQsError,
    UnsupportedError,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from quickstart.backends.engine import Engine
    from quickstart.console import Console

_ATTEMPTS = 3
_PAUSE = 2.0
_VAIN = (ArtifactMissingError, NotAuthorisedError, UnsupportedError)
_NGC_USER = "$oauthtoken"


def pull(engine: Engine, image: str, key: str, console: Console) -> None:
    """Pull an image, with NVIDIA's key where there is one; the engine resumes by layers.

    Raises:
        NotAuthorisedError: The registry refused the key, or wants one.
        RivaQsError: It failed for good.
    """
    for attempt in range(1, _ATTEMPTS):
        try:
            return _attempt(engine, image, key, console)
        except RivaQsError as error:  # noqa: PERF203 - a pull takes minutes
            if isinstance(error, _VAIN):
                raise
            console.note(f"attempt {attempt} of {_ATTEMPTS}: {error.message}")
            time.sleep(_PAUSE)
    return _attempt(engine, image, key, console)


def _attempt(engine: Engine, image: str, key: str, console: Console) -> None:
    """Pull an image once."""
    credentials = {"username": _NGC_USER, "password": key} if key else None
    with console.activity(f"pulling {image}") as report:
        for line in _progress(engine.pull(image, credentials)):
            report(line)


def _progress(rows: Iterable[dict[str, Any]]) -> Iterable[str]:
    """Yield how much of all layers is there, each time that a tenth more is."""
    layers: dict[str, tuple[int, int]] = {}
    told = -1
    for row in rows:
        detail = row.get("progressDetail") or {}
        if detail.get("total") and row.get("status") == "Downloading":
            layers[row["id"]] = (detail.get("current", 0), detail["total"])
            done, total = (sum(column) for column in zip(*layers.values(), strict=True))
            if 10 * done // total != told:
                told = 10 * done // total
                yield f"{done >> 20} of {total >> 20} MiB, {len(layers)} layers"
        elif not detail and "id" not in row:
            yield str(row.get("status", ""))
