"""How much memory a process has, and what keeps it."""

from __future__ import annotations

import gc
import re
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


def resident(pid: int | str = "self") -> int:
    """Return a process's resident memory in bytes."""
    status = Path(f"/proc/{pid}/status").read_text()
    return 1024 * int(re.findall(r"VmRSS:\s+(\d+)", status)[0])


@contextmanager
def without_collector() -> Iterator[None]:
    """Leave circles of objects where they are."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
