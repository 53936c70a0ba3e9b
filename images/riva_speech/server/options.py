"""What a server is started with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True)
class Tls:
    """PEM files of TLS; with ``mutual``, clients show a certificate that ``root`` signed."""

    certificate: Path
    key: Path
    root: Path | None = None
    mutual: bool = False


@dataclass(frozen=True)
class ServerOptions:
    """Address, models and limits of one server.

    ``uri`` is HOST:PORT; ``max_requests`` bounds the recognitions at once; ``drain_timeout`` is how
    many seconds running requests may take once the server is told to stop.
    """

    uri: str
    model_repository: Path
    max_requests: int = 64
    drain_timeout: float = 10.0
    tls: Tls | None = None
