"""What can be wrong with values that are each fine: they must fit together."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from quickstart.config.settings import Settings


def contradictions(settings: Settings) -> Iterator[str]:
    """Yield a sentence for every pair of keys that cannot both hold."""
    if settings.image == "riva" and settings.backend == "embedded":
        yield "backend=embedded runs no image; with image=riva, set backend=docker or auto"
    yield from _ports(settings)
    yield from _tls(settings)


def _ports(settings: Settings) -> Iterator[str]:
    """Yield the keys that name one port twice."""
    names = ("riva_speech_api_port", "riva_speech_api_http_port", "server_metrics_port")
    taken: dict[int, str] = {}
    for name in names:
        port = getattr(settings, name)
        if port in taken:
            yield f"{taken[port]} and {name} are both {port}"
        elif port:
            taken[port] = name
    if settings.image == "riva" and not settings.riva_speech_api_http_port:
        yield "image=riva needs a riva_speech_api_http_port: NVIDIA's server always has one"


def _tls(settings: Settings) -> Iterator[str]:
    """Yield what contradicts itself in the keys of TLS; nothing is ever served plain by mistake."""
    if settings.ssl_server_cert and not settings.ssl_server_key:
        yield "ssl_server_cert needs ssl_server_key: TLS takes both"
    if settings.ssl_server_key and not settings.ssl_server_cert:
        yield "ssl_server_key needs ssl_server_cert: TLS takes both"
    if settings.ssl_use_mutual_auth:
        needed = ("ssl_server_cert", "ssl_server_key", "ssl_root_cert")
        missing = [name for name in needed if not getattr(settings, name)]
        if missing:
            yield f"ssl_use_mutual_auth=true needs {', '.join(missing)}"
