"""What figures were taken on, and with which versions."""

from __future__ import annotations

import os
import platform
from importlib import metadata
from pathlib import Path


def facts(*distributions: str) -> str:
    """Return the machine, its load and the versions of distributions in one line."""
    versions = ", ".join(f"{name} {_version(name)}" for name in distributions)
    return (
        f"{_processor()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, "
        f"Python {platform.python_version()}; {versions}"
    )


def _version(distribution: str) -> str:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return "not installed"


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    names = (line.partition(":")[2].strip() for line in lines if "model name" in line)
    return next(names, platform.machine())
