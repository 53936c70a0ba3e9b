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
    if settings.riva_speech_api_port == settings.riva_speech_api_http_port:
        port = settings.riva_speech_api_port
        yield f"riva_speech_api_port and riva_speech_api_http_port are both {port}"
    yield from _tls(settings)


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
