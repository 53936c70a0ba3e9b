"""What ngcsdk serves for: who we are at NGC, and what a model version has.

It reads its environment once, when it is imported; prints; tells failures of the network apart in
no way; and leaves the program where ~/.ngc/config is damaged. So it is imported here alone, sees
nothing of the user's keys but what it is given, and its output and errors end here.
"""

from __future__ import annotations

import base64
import binascii
import os
import re
import threading
import uuid
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from functools import cached_property
from io import StringIO
from typing import TYPE_CHECKING, Any

from quickstart.errors import IntegrityError, RivaQsError
from quickstart.sources import SourceFile
from quickstart.sources.failures import StatusError, detail_of, network_error
from quickstart.sources.network import goes_around_proxies

if TYPE_CHECKING:
    from collections.abc import Iterator

    from quickstart.sources.key import Key

_KEYS = ("NGC_CLI_API_KEY", "NGC_API_KEY", "NGC_APP_KEY", "NGC_CLI_EMAIL")
_CONTEXT = ("NGC_CLI_ORG", "NGC_CLI_TEAM", "NGC_CONTEXT_ORG", "NGC_CLI_FORMAT_TYPE")
_PROXIES = {"HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy", "HTTP_PROXY", "http_proxy"}
_CHANGED = {"REQUESTS_CA_BUNDLE", *_PROXIES}
_NOWHERE = "/dev/null"
_REFUSED = 400


# What ngcsdk reads and prints is the process's: one thread of all may ask, whatever its account.
_LOCK = threading.RLock()


@dataclass
class Account:
    """A key at NGC; threads may share one.

    Attributes:
        key: The key; without one, a guest.
        org: The organisation that a key belongs to that does not say so itself.
    """

    key: Key
    org: str

    @cached_property
    def _bare(self) -> Any:  # noqa: ANN401 - ngcsdk has no types
        """The client of ngcsdk, as a guest's."""
        with _environment():
            import ngcsdk

        # Else ngcsdk writes the one that it invents into ~/.ngc.
        os.environ.setdefault("NGC_CLI_GUEST_TOKEN", str(uuid.uuid4()))
        client = ngcsdk.Client()
        client.clear_cache()
        return client

    @cached_property
    def _client(self) -> Any:  # noqa: ANN401 - ngcsdk has no types
        """The client of ngcsdk, its key checked."""
        client = self._bare
        if self.key.secret.startswith("nvapi-"):
            # Asks NGC whose key it is; the key names its own organisation.
            client.configure(api_key=self.key.secret, team_name="no-team")
        elif self.key.secret:
            # `configure` would insist that the user is a member of `org`, as NGC does not.
            client.config.app_key, client.config.org_name = self.key.secret, self.org
        return client

    @cached_property
    def base_url(self) -> str:
        """The address of the API."""
        with _LOCK:
            return str(self._bare.config.base_url).rstrip("/")

    def headers(self, org: str, team: str, *, renew: bool = False) -> dict[str, str]:
        """Return the headers that say who we are, with a token that is still good."""
        with self._asking():
            found = self._client.authentication.auth_header(
                auth_org=org, auth_team=team or None, renew=renew
            )
            return {name: str(value) for name, value in found.items()}

    def status(self, org: str, team: str, name: str, version: str) -> str:
        """Return whether a model version is complete, in NGC's words."""
        with self._asking():
            model = self._client.registry.model
            found = model.get_version(org, team or None, name, version)
            return str(found.modelVersion.status)

    def files(self, target: str) -> tuple[SourceFile, ...]:
        """Return the files of `org/team/name:version`, from all pages of the list.

        Raises:
            IntegrityError: A file has no SHA-256, or a name that leaves the folder.
            StatusError: NGC refuses.
        """
        with self._asking():
            rows = [
                (f.path, f.sizeInBytes, f.sha256_base64)
                for f in self._client.registry.model.list_files(target)
            ]
        return tuple(_file(target, str(path), int(size or 0), hash_) for path, size, hash_ in rows)

    @contextmanager
    def _asking(self) -> Iterator[None]:
        """Keep ngcsdk to one thread and silent, and translate what it raises."""
        with _LOCK, _surroundings(self.base_url):
            try:
                with redirect_stdout(StringIO()), redirect_stderr(StringIO()):
                    yield
            except (RivaQsError, StatusError):
                raise
            except (Exception, SystemExit) as error:  # noqa: BLE001 - it raises whatever it meets
                raise _translated(error, self.base_url) from None


def _file(target: str, path: str, size: int, hash_: object) -> SourceFile:
    """Return one file of the list."""
    safe = re.fullmatch(r"[^/\0]+(/[^/\0]+)*", path) and not {".", ".."} & set(path.split("/"))
    if not safe:
        raise IntegrityError(f'{target} lists a file with the name "{path}"', "do not use it")
    try:
        digest = base64.b64decode(str(hash_ or ""), validate=True).hex()
    except binascii.Error:
        digest = ""
    if len(digest) != 64:  # noqa: PLR2004 - hex digits of a SHA-256
        raise IntegrityError(
            f"NGC names no SHA-256 for {path} of {target}, so that it cannot be verified",
            "fetch it by hand into rmir/, and set use_existing_rmirs=true",
        )
    return SourceFile(path, size, digest)


def _translated(error: BaseException, url: str) -> Exception:
    """Return what ngcsdk's error stands for: a StatusError, or an error of our tree."""
    each: BaseException | None = error
    while each is not None:
        response = getattr(each, "response", None)
        if response is not None and response.status_code >= _REFUSED:
            wait = response.headers.get("Retry-After", "")
            return StatusError(int(response.status_code), detail_of(response), wait)
        each = each.__cause__ or each.__context__
    status = re.search(r"unexpected format\) : ([45]\d\d)", str(error))
    if status:
        return StatusError(int(status[1]))
    if "apikey" in str(error):
        return StatusError(401)
    found = network_error(error, url)
    if isinstance(error, OSError) or type(error).__module__.startswith("ngcbase"):
        return found
    name = type(error).__name__
    return RivaQsError(f"NGC answered what ngcsdk does not expect ({name})", "try again later")


@contextmanager
def _environment() -> Iterator[None]:
    """Let ngcsdk see no key and no folder of the user's while it is imported."""
    names = (*_KEYS, *_CONTEXT, "NGC_CLI_HOME")
    kept = {name: os.environ.pop(name) for name in names if name in os.environ}
    os.environ["NGC_CLI_HOME"] = _NOWHERE
    try:
        yield
    finally:
        del os.environ["NGC_CLI_HOME"]
        os.environ.update(kept)


@contextmanager
def _surroundings(url: str) -> Iterator[None]:
    """Let SSL_CERT_FILE and NO_PROXY hold for ngcsdk too, which knows neither."""
    kept = dict(os.environ)
    if not (kept.get("REQUESTS_CA_BUNDLE") or kept.get("CURL_CA_BUNDLE")):
        os.environ["REQUESTS_CA_BUNDLE"] = kept.get("SSL_CERT_FILE", "")
    if goes_around_proxies(url):
        for name in _PROXIES & set(kept):
            del os.environ[name]
    try:
        yield
    finally:
        os.environ.pop("REQUESTS_CA_BUNDLE", None)
        os.environ.update({name: kept[name] for name in _CHANGED & set(kept)})
