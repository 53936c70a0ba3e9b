"""Who may open a realtime session: a key to post for one, and a secret to open its socket."""

from __future__ import annotations

import hmac
import secrets
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

# The variable that NVIDIA's server reads its key from.
KEY_VARIABLE = "REALTIME_AUTH_MINT_API_KEY"
SUBPROTOCOL = "realtime"
CHALLENGE = 'Bearer realm="riva-realtime-mint"'
_TOKEN_PREFIX = "realtime-token."  # noqa: S105 - what stands before one
_BEARER = "bearer "
_GOOD_FOR_SECONDS = 60.0
_MOST_SECRETS = 10_000


class SessionKeys:
    """Knows the key, and the secrets that were given for it; without a key, all may come."""

    def __init__(self, key: str) -> None:
        self._key = key
        self._secrets: dict[str, float] = {}

    @property
    def are_needed(self) -> bool:
        """Whether there is a key."""
        return bool(self._key)

    def may_mint(self, headers: Mapping[str, str]) -> bool:
        """Whether a request has the key, as a bearer's token or in ``X-API-Key``."""
        given = headers.get("authorization", "")
        token = given[len(_BEARER) :] if given.lower().startswith(_BEARER) else ""
        shown = (token or headers.get("x-api-key", "")).strip()
        return not self._key or hmac.compare_digest(shown.encode(), self._key.encode())

    def mint(self) -> str:
        """Return a secret that opens one socket within the next minute."""
        now = time.monotonic()
        self._secrets = {one: until for one, until in self._secrets.items() if until > now}
        if len(self._secrets) >= _MOST_SECRETS:
            self._secrets.pop(next(iter(self._secrets)))
        secret = secrets.token_urlsafe()
        self._secrets[secret] = now + _GOOD_FOR_SECONDS
        return secret

    def may_open(self, headers: Mapping[str, str]) -> bool:
        """Whether a request for a socket has a secret among its subprotocols; it is used up."""
        offered = headers.get("sec-websocket-protocol", "").split(",")
        tokens = [one.strip() for one in offered if one.strip().startswith(_TOKEN_PREFIX)]
        until = [self._secrets.pop(token[len(_TOKEN_PREFIX) :], 0.0) for token in tokens]
        return not self._key or any(one > time.monotonic() for one in until)
