"""HTTP: parts of files and JSON, with every failure told as what it is.

Proxies come from HTTPS_PROXY, HTTP_PROXY and NO_PROXY, private authorities from REQUESTS_CA_BUNDLE
or SSL_CERT_FILE. A redirect to another host never takes the Authorization header along. Addresses
are named in errors without their query, which may be a signature.
"""

from __future__ import annotations

import http.client
import os
import re
import socket
import ssl
import threading
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from functools import cached_property
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import requests
import urllib3
from requests.adapters import HTTPAdapter

from quickstart import __version__
from quickstart.errors import (
    ArtifactMissingError,
    IntegrityError,
    NetworkError,
    NotAuthorisedError,
    RivaQsError,
    UsageError,
)
from quickstart.transfer.patience import QUICK, Patience

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

CONNECT_SECONDS = 10
SILENCE_SECONDS = 20
_CONNECTIONS = 32
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


@dataclass
class HttpBody:
    """A part of a file that comes over HTTP."""

    start: int
    _raw: urllib3.BaseHTTPResponse
    _url: str

    def readinto(self, buffer: memoryview) -> int:
        """Fill a buffer, and return with how many bytes: fewer, or none, at the end."""
        with translated(self._url):
            # urllib3's own reading copies every byte twice before it gives it away.
            count: int = self._raw._fp.readinto(buffer)  # type: ignore[attr-defined] # noqa: SLF001
            if count and self._raw.closed:
                self._raw.release_conn()
            return count

    def abort(self) -> None:
        """Make a `readinto` that waits in another thread end."""
        with suppress(OSError, ValueError, RuntimeError, AttributeError):
            self._raw.shutdown()


@dataclass
class Network:
    """Makes requests; threads may share one.

    Attributes:
        silence: How many seconds the other side may say nothing.
    """

    silence: float = SILENCE_SECONDS
    patience: Patience = QUICK
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @cached_property
    def _session(self) -> requests.Session:
        """The connections, kept for the next request."""
        session = requests.Session()
        session.headers["User-Agent"] = f"riva-qs/{__version__}"
        session.verify = os.environ.get("SSL_CERT_FILE") or True
        # Else requests would put what ~/.netrc has for a host over our own header.
        session.auth = _leave_headers
        for scheme in ("https://", "http://"):
            session.mount(scheme, HTTPAdapter(pool_maxsize=_CONNECTIONS))
        return session

    def get(self, url: str, headers: Mapping[str, str]) -> requests.Response:
        """Return the answer to a request, its body still to be read.

        Raises:
            NetworkError: There is no answer, or one that says to come back later.
        """
        with self._lock:
            session = self._session
        with translated(url):
            return session.get(
                url,
                headers={"Accept-Encoding": "identity", **headers},
                stream=True,
                timeout=(min(CONNECT_SECONDS, self.silence), self.silence),
            )

    def answer(self, url: str, headers: Mapping[str, str]) -> object:
        """Return the JSON at an address.

        Raises:
            StatusError: The answer is no success.
            NetworkError: There is no answer, or it is not JSON.
        """
        with self.get(url, headers) as response, translated(url):
            if response.status_code != requests.codes.ok:
                wait = response.headers.get("Retry-After", "")
                raise StatusError(response.status_code, detail_of(response), wait)
            found: object = response.json()
            return found

    def size_of(self, url: str) -> int:
        """Return how many bytes the file at an address has.

        Raises:
            RivaQsError: What the status code stands for, or the server does not tell.
        """
        return self.patience.patiently(lambda: self._size_of(url))

    def _size_of(self, url: str) -> int:
        """Ask once, for one byte, since signed addresses often permit no HEAD."""
        with self.get(url, {"Range": "bytes=0-0"}) as response:
            if response.status_code == requests.codes.partial_content:
                return _content_range(response)[2]
            if response.status_code == requests.codes.requested_range_not_satisfiable:
                return 0
            if response.status_code != requests.codes.ok:
                raise refusal(response)
            length = response.headers.get("Content-Length", "")
            if not length.isdecimal():
                raise RivaQsError(f"{shown(url)} does not say how large it is", "use a mirror")
            return int(length)

    @contextmanager
    def part_of(self, url: str, size: int, start: int, stop: int) -> Iterator[HttpBody]:
        """Give the bytes [start, stop) of a file of `size` bytes; all of it where ranges fail.

        Raises:
            IntegrityError: The file there has another size.
            RivaQsError: What the status code stands for, as in `refusal`.
        """
        wanted = {"Range": f"bytes={start}-{stop - 1}"} if stop > start else {}
        with self.get(url, wanted) as response:
            yield HttpBody(_begins(response, size, start), response.raw, url)


def _leave_headers(request: requests.PreparedRequest) -> requests.PreparedRequest:
    """Be the authentication that adds nothing."""
    return request


def _begins(response: requests.Response, size: int, start: int) -> int:
    """Return the offset of the first byte of an answer, checked against what was asked for."""
    if response.status_code == requests.codes.ok:
        length = response.headers.get("Content-Length", "")
        _check_size(response.url, size, int(length) if length.isdecimal() else size)
        return 0
    if response.status_code == requests.codes.requested_range_not_satisfiable:
        raise IntegrityError(
            f"{shown(response.url)} is shorter than its {size} bytes", "ask who offers it"
        )
    if response.status_code != requests.codes.partial_content:
        raise refusal(response)
    first, _, total = _content_range(response)
    _check_size(response.url, size, total)
    if first != start:
        raise NetworkError(f"{shown(response.url)} gave bytes from {first}, asked for {start}")
    return first


def _check_size(url: str, size: int, total: int) -> None:
    """Raise when the file there has another size."""
    if total != size:
        raise IntegrityError(
            f"{shown(url)} has {total} bytes, and was said to have {size}",
            "it was replaced there: check its version and its hash",
        )


def _content_range(response: requests.Response) -> tuple[int, int, int]:
    """Return first byte, last byte and total of a partial answer."""
    text = response.headers.get("Content-Range", "")
    match = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+)", text)
    if match is None:
        message = f'{shown(response.url)} answers with the range "{text}"'
        raise NetworkError(message, "a proxy may be in the way: check HTTPS_PROXY", lasting=True)
    first, last, total = map(int, match.groups())
    return first, last, total


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
    with suppress(ValueError, TypeError):
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


def goes_around_proxies(url: str) -> bool:
    """Say whether NO_PROXY exempts an address from proxies."""
    return bool(requests.utils.should_bypass_proxies(url, no_proxy=None))


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
