"""How much memory a process has."""

from __future__ import annotations

import re
from pathlib import Path


def resident(pid: int | str = "self") -> int:
    """Return a process's resident memory in bytes."""
    status = Path(f"/proc/{pid}/status").read_text()
    return 1024 * int(re.findall(r"VmRSS:\s+(\d+)", status)[0])
