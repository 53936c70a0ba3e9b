"""Ports of this machine that cannot be had, and who has them."""

from __future__ import annotations

import errno
import re
import socket
from typing import TYPE_CHECKING

from quickstart import platforms
from quickstart.errors import OutOfResourceError, UsageError

if TYPE_CHECKING:
    from quickstart.backends.base import ServerSpec
    from quickstart.errors import RivaQsError

_REFUSED = re.compile(r"Bind for \S*?:(\d+) failed|listen tcp[46]? \S*:(\d+): ")


def check(spec: ServerSpec) -> None:
    """Raise an error that names who is in the way, unless every port of a server can be bound."""
    for port in _keys(spec):
        _check(spec, port)


def _keys(spec: ServerSpec) -> dict[int, str]:
    """Return the keys of the ports that a server listens on."""
    keys = {
        spec.port: "riva_speech_api_port",
        spec.http_port: "riva_speech_api_http_port",
        spec.metrics_port: "server_metrics_port",
    }
    return {port: key for port, key in keys.items() if port}


def _check(spec: ServerSpec, port: int) -> None:
    family = socket.AF_INET6 if ":" in spec.host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((spec.host, port))
            probe.listen()
        except OSError as error:
            raise _cannot_listen(spec, port, error) from error


def _cannot_listen(spec: ServerSpec, port: int, error: OSError) -> RivaQsError:
    """Return the error for a port that cannot be bound."""
    owner = platforms.listener(port)
    if owner or error.errno == errno.EADDRINUSE:
        return taken(spec, port, str(owner or ""))
    message = f"cannot listen on {spec.host} port {port}: {error.strerror or error}"
    return UsageError(message, f"check riva_speech_api_host and {_keys(spec)[port]}")


def refused(words: str) -> int:
    """Return the port that an engine could not publish because it is taken; 0 for none."""
    found = _REFUSED.search(words)
    return int(found[1] or found[2]) if found else 0


def taken(spec: ServerSpec, port: int, owner: str) -> OutOfResourceError:
    """Return the error for a port that somebody has."""
    key = _keys(spec).get(port, "riva_speech_api_port")
    message = f"port {port} is taken by {owner or 'another process'}"
    return OutOfResourceError(message, f"stop it, or set {key} to a free port")
