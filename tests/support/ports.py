"""Ports for servers that are yet to be started."""

from __future__ import annotations

import secrets
import socket
from pathlib import Path

_LOWEST, _HIGHEST = 10_000, 65_535
ENOUGH = 5000
_KERNELS = Path("/proc/sys/net/ipv4/ip_local_port_range")
_given: set[int] = set()


def free_port() -> int:
    """Return a port that nothing listens on, and that nobody takes before its server does.

    The kernel gives the ports of one range to whoever connects to anything, and to whoever lets it
    choose where to listen: a free one of these may be taken a moment later. This one is none of
    them, unless they leave too few, and was not returned before.
    """
    first, last = map(int, _KERNELS.read_text().split())
    others = [*range(_LOWEST, first), *range(last + 1, _HIGHEST + 1)]
    ours = others if len(others) >= ENOUGH else range(_LOWEST, _HIGHEST + 1)
    while True:
        port = secrets.choice(ours)
        if port not in _given and _is_free(port):
            _given.add(port)
            return port


def _is_free(port: int) -> bool:
    """Say whether a port can be listened on, at every address."""
    with socket.socket() as probe:
        try:
            probe.bind(("", port))
        except OSError:
            return False
    return True
