"""HTTP: parts of files and JSON, with every failure told as what it is in `failures`.

Proxies come from HTTPS_PROXY, HTTP_PROXY and NO_PROXY, private authorities from REQUESTS_CA_BUNDLE
or SSL_CERT_FILE. A redirect to another host never takes the Authorization header along.
"""

from __future__ import annotations

import os
import re
import threading
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

import requests
from requests.adapters import HTTPAdapter

from quickstart import __version__
from quickstart.errors import IntegrityError, NetworkError, RivaQsError
from quickstart.sources.failures import StatusError, detail_of, refusal, shown, translated
from quickstart.transfer.patience import QUICK, Patience

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import urllib3

CONNECT_SECONDS = 10
SILENCE_SECONDS = 20
_CONNECTIONS = 32


@dataclass
class HttpBody:
    """A part of a file that comes over HTTP."""

    start: int
    _raw: urllib3.BaseHTTPResponse
    _url: str
    _aborted: bool = False

    def readinto(self, buffer: memoryview) -> int:
        """Fill a buffer, and return with how many bytes: fewer, or none, at the end.

        Raises:
            NetworkError: It broke off, or was aborted.
        """
        with translated(self._url):
            # urllib3's own reading copies every byte twice before it gives it away.
            count: int = self._raw._fp.readinto(buffer)  # type: ignore[attr-defined] # noqa: SLF001
            if count and self._raw.closed:
                self._raw.release_conn()
        # Python's TLS sockets, once shut down, give what is left as it came: encrypted.
        if self._aborted:
            raise NetworkError(f"{shown(self._url)} was broken off", "try again")
        return count

    def abort(self) -> None:
        """Make a `readinto` that waits in another thread end, and give nothing any more."""
        self._aborted = True
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
            length = _length(response)
            if length is None:
                raise RivaQsError(f"{shown(url)} does not say how large it is", "use a mirror")
            return length

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
        length = _length(response)
        _check_size(response.url, size, size if length is None else length)
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


def _length(response: requests.Response) -> int | None:
    """Return how long an answer says it is; None where it says nothing that a file can have."""
    text = response.headers.get("Content-Length", "")
    return int(text) if re.fullmatch(r"\d{1,18}", text) else None


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
    match = re.fullmatch(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18})", text)
    if match is None:
        message = f'{shown(response.url)} answers with the range "{text}"'
        raise NetworkError(message, "a proxy may be in the way: check HTTPS_PROXY", lasting=True)
    first, last, total = map(int, match.groups())
    return first, last, total


def goes_around_proxies(url: str) -> bool:
    """Say whether NO_PROXY exempts an address from proxies."""
    return bool(requests.utils.should_bypass_proxies(url, no_proxy=None))
