"""Failures of HTTP and of the way to a host, each told as what it is.

Addresses are named without their query, which may be a signature.
"""

from __future__ import annotations

import http.client
import re
import socket
import ssl
import time
from contextlib import contextmanager, suppress
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import requests
import urllib3

from quickstart.errors import (
    ArtifactMissingError,
    NetworkError,
    NotAuthorisedError,
    RivaQsError,
    UsageError,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

_PROXY_HINT = "check HTTPS_PROXY and NO_PROXY"
_PROXY_PASSWORD = "put the proxy's user and password into HTTPS_PROXY"  # noqa: S105 - a hint
_TUNNEL = re.compile(r"Tunnel connection failed: (\d{3})\b")
_CERTIFICATE_HINT = (
    "where a proxy or a mirror has a certificate of its own, name its authority:"
    " REQUESTS_CA_BUNDLE=/path/to/ca.pem; else check this machine's clock"
)


class StatusError(Exception):
    """A server answered with a status code that is no success.

    Attributes:
        code: The status code.
        detail: What the server says of it.
        wait: Its Retry-After header.
    """

    def __init__(self, code: int, detail: str = "", wait: str = "") -> None:
        super().__init__(f"{code} {detail}")
        self.code = code
        self.detail = detail
        self.wait = wait


def shown(url: str) -> str:
    """Return an address without its query and credentials, which may be secret."""
    parts = urlsplit(url)
    port = f":{parts.port}" if parts.port else ""
    return f"{parts.scheme}://{parts.hostname}{port}{parts.path}"


def refusal(response: requests.Response) -> RivaQsError:
    """Return the error that a status code stands for.

    401, 403 and 407 are NotAuthorisedError, 404 and 410 ArtifactMissingError; 408, 425, 429 and
    those of the server are a NetworkError, with the wait that Retry-After asks for.
    """
    code = response.status_code
    message = f"{shown(response.url)} answers {code} {response.reason or ''}".rstrip()
    if code == requests.codes.proxy_authentication_required:
        return NotAuthorisedError(message, _PROXY_PASSWORD)
    if code in {401, 403}:
        return NotAuthorisedError(message, "check that you may fetch it")
    if code in {404, 410}:
        return ArtifactMissingError(message, "check the address and its version")
    if code in {408, 425, 429} or code >= 500:  # noqa: PLR2004 - the server's own failures
        hint = "try again later: what has arrived is kept"
        return NetworkError(message, hint, wait=wait_of(response.headers.get("Retry-After", "")))
    return RivaQsError(message, "check the address")


def detail_of(response: requests.Response) -> str:
    """Return what a server's JSON says of its refusal, in the forms that NGC knows."""
    try:
        data = response.json()
    except ValueError:
        return ""
    if not isinstance(data, dict):
        return ""
    status = data.get("requestStatus")
    nested = status.get("statusDescription") if isinstance(status, dict) else ""
    return str(nested or data.get("detail") or data.get("message") or "")[:300]


def wait_of(text: str) -> float:
    """Return the seconds that a Retry-After header asks to wait."""
    if text.isdecimal():
        return float(text)
    with suppress(ValueError, TypeError, OverflowError):
        return max(0.0, parsedate_to_datetime(text).timestamp() - time.time())
    return 0.0


_FOREIGN = (
    requests.RequestException,
    urllib3.exceptions.HTTPError,
    http.client.HTTPException,
    OSError,
)


@contextmanager
def translated(url: str) -> Iterator[None]:
    """Turn what requests and urllib3 raise into errors of our tree."""
    try:
        yield
    except _FOREIGN as error:
        raise network_error(error, url) from None


def network_error(error: BaseException, url: str) -> RivaQsError:
    """Return the error of our tree for one of the network, or of a library on top of it."""
    causes = list(_causes(error))
    host = urlsplit(_asked(causes) or url).hostname or url
    if code := _tunnel_code(causes):
        return _no_tunnel(host, code)
    for kinds, describe in _KINDS:
        for cause in causes:
            if isinstance(cause, kinds):
                return describe(host, cause)
    for cause in causes:
        if type(cause) is OSError and "CA certificate bundle" in str(cause):
            return UsageError(str(cause), "check REQUESTS_CA_BUNDLE and SSL_CERT_FILE")
    return NetworkError(f"the connection to {host} failed ({type(error).__name__})")


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and all that it stands for."""
    seen: set[int] = set()
    queue: list[object] = [error]
    while queue:
        each = queue.pop()
        if isinstance(each, BaseException) and id(each) not in seen:
            seen.add(id(each))
            yield each
            queue += [each.__cause__, each.__context__, getattr(each, "reason", None), *each.args]


def _asked(causes: Iterable[BaseException]) -> str:
    """Return the address that a request was for, where one of the errors knows it."""
    requested = (getattr(cause, "request", None) for cause in causes)
    return next((str(request.url) for request in requested if request is not None), "")


def _untrusted(host: str, error: BaseException) -> NetworkError:
    why = getattr(error, "verify_message", "") or "verification failed"
    message = f"the certificate of {host} is not trusted ({why})"
    return NetworkError(message, _CERTIFICATE_HINT, lasting=True)


def _proxy(host: str, _error: BaseException) -> RivaQsError:
    return NetworkError(f"the proxy on the way to {host} cannot be used", _PROXY_HINT)


def _no_tunnel(host: str, code: int) -> RivaQsError:
    """Return the error for a proxy that is there and opens no way to a host."""
    message = f"the proxy on the way to {host} answers {code}"
    if code == requests.codes.proxy_authentication_required:
        return NotAuthorisedError(f"{message}: it wants a password", _PROXY_PASSWORD)
    if code in {401, 403}:
        hint = f"it permits no connection to {host}: ask who runs it, or add {host} to NO_PROXY"
        return NotAuthorisedError(message, hint)
    return NetworkError(message, _PROXY_HINT)


def _tunnel_code(causes: Iterable[BaseException]) -> int | None:
    """Return the status with which a proxy refused a tunnel, which http.client has in words."""
    for cause in causes:
        if type(cause) is OSError and (match := _TUNNEL.match(str(cause))):
            return int(match[1])
    return None


def _unresolved(host: str, _error: BaseException) -> NetworkError:
    hint = "check this machine's DNS and network; behind a proxy set HTTPS_PROXY"
    return NetworkError(f"the name {host} cannot be resolved", hint)


def _refused(host: str, _error: BaseException) -> NetworkError:
    hint = "check the address and the firewall; behind a proxy set HTTPS_PROXY"
    return NetworkError(f"{host} refuses the connection", hint)


def _no_tls(host: str, error: BaseException) -> NetworkError:
    why = getattr(error, "reason", "") or type(error).__name__
    return NetworkError(f"no TLS connection to {host} ({why})", _PROXY_HINT)


def _no_connection(host: str, _error: BaseException) -> NetworkError:
    hint = "check the network and the firewall; behind a proxy set HTTPS_PROXY"
    return NetworkError(f"{host} does not answer (no connection in time)", hint)


def _silent(host: str, _error: BaseException) -> NetworkError:
    return NetworkError(f"{host} sends nothing (the connection is there)", "try again later")


def _broken_off(host: str, _error: BaseException) -> NetworkError:
    return NetworkError(f"{host} broke the connection off", "try again: what has arrived is kept")


def _endless(host: str, _error: BaseException) -> NetworkError:
    return NetworkError(f"{host} redirects in a circle", "check the address", lasting=True)


def _no_address(host: str, _error: BaseException) -> UsageError:
    return UsageError(f'"{host}" is no address that can be fetched', "check it")


def _no_json(host: str, _error: BaseException) -> NetworkError:
    return NetworkError(f"{host} answers with something that is not JSON", _PROXY_HINT)


# The first that any cause of an error is an instance of decides.
_KINDS: list[
    tuple[tuple[type[BaseException], ...], Callable[[str, BaseException], RivaQsError]]
] = [
    ((ssl.SSLCertVerificationError,), _untrusted),
    ((requests.exceptions.ProxyError, urllib3.exceptions.ProxyError), _proxy),
    ((socket.gaierror, urllib3.exceptions.NameResolutionError), _unresolved),
    ((ConnectionRefusedError,), _refused),
    ((requests.exceptions.JSONDecodeError,), _no_json),
    ((requests.TooManyRedirects,), _endless),
    (
        (requests.exceptions.InvalidURL, requests.exceptions.InvalidSchema),
        _no_address,
    ),
    ((requests.ConnectTimeout, urllib3.exceptions.ConnectTimeoutError), _no_connection),
    ((urllib3.exceptions.ReadTimeoutError, requests.ReadTimeout, TimeoutError), _silent),
    (
        (
            ConnectionError,
            ssl.SSLEOFError,
            http.client.HTTPException,
            urllib3.exceptions.IncompleteRead,
            urllib3.exceptions.ProtocolError,
            requests.exceptions.ChunkedEncodingError,
        ),
        _broken_off,
    ),
    ((ssl.SSLError, requests.exceptions.SSLError, urllib3.exceptions.SSLError), _no_tls),
]
