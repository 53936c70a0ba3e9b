"""A stand-in for NGC: an API and a download host, over HTTPS on this machine.

What it speaks is what NGC speaks to ngcsdk 4.37:

    POST /v3/keys/get-caller-info                  whose key it is: `credentials` in a form
    GET  /token?service=ngc&scope=group/ngc:ORG    a token for a legacy key, as HTTP Basic
    GET  /v2/orgs, /v2/org/ORG/teams               what the user is a member of
    GET  OWNER/models                              the models of an owner
    GET  OWNER/models/NAME[/versions[/V]]          a model, its versions, one of them
    GET  OWNER/models/NAME/versions/V/files        path, sizeInBytes, sha256_base64, in pages
    GET  OWNER/models/NAME/V/files[?path=FILE]     signed links to the download host

with OWNER /v2/org/ORG[/team/TEAM] for who has a key. A guest asks /v2/models/ORG[/TEAM]/NAME for
what is known and /v2/models/org/ORG[/team/TEAM]/NAME/V/files for links. The download host has
another name and port; it wants the signature of the link and no key, and knows Range.

Faults wait for requests whose path they match, on either host. To try by hand:

    PYTHONPATH=tests python -m support.ngc --port 8443 FILE...
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import json
import math
import re
import secrets
import select
import ssl
import tempfile
import threading
import time
from collections import Counter
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, quote, unquote, urlsplit

from support import certificates

if TYPE_CHECKING:
    from collections.abc import Iterator

PERSONAL, SERVICE, LEGACY = "nvapi-personal-1", "nvapi-service-1", "bGVnYWN5LWtleS1vbmU6MQ"
_CHUNK = 1 << 16
_DRIPS = 20


@dataclass
class Model:
    """One version of a model."""

    files: dict[str, bytes]
    name: str = "rmir_asr_test"
    version: str = "1.0"
    owner: str = "nvidia/riva"
    status: str = "UPLOAD_COMPLETE"
    guests: bool = False
    licence_accepted: bool = True
    hashes: bool = True

    @property
    def target(self) -> str:
        """The reference that names it."""
        return f"{self.owner}/{self.name}:{self.version}"


@dataclass
class Account:
    """Who a key belongs to, and which owners' models it may read."""

    kind: str
    org: str = "0123456789"
    owners: tuple[str, ...] = ("nvidia/riva",)


@dataclass
class Fault:
    """What goes wrong for requests whose path matches.

    Attributes:
        kind: status, ignore_range, cut, corrupt, drip, silence, reset, redirect, shifted, resized,
            expire or html.
        path: The pattern of the paths that it waits for.
        times: How many requests it meets; below 0: all.
        value: The status code, the byte where it cuts or corrupts, or the bytes a second.
        header: The Retry-After header, or the host that it redirects to.
        skip: How many requests pass before.
    """

    kind: str
    path: str = "/blob/"
    times: int = 1
    value: int = 0
    header: str = ""
    skip: int = 0

    def meets(self, path: str) -> bool:
        """Say whether it strikes this request, and count it."""
        if not self.times or not re.search(self.path, path):
            return False
        if self.skip:
            self.skip -= 1
            return False
        self.times -= 1
        return True


@dataclass(frozen=True)
class Request:
    """A request as it arrived."""

    host: str
    path: str
    query: dict[str, list[str]]
    headers: dict[str, str]


@dataclass
class Ngc:
    """What the stand-in knows, and what was asked of it.

    Attributes:
        page: How many files a page of the list has.
        token_seconds: How long a token that a legacy key got is good.
        link_seconds: How long a signed link is good.
        requests: What arrived, in order.
        clients: The addresses of those that are connected.
    """

    folder: Path
    plain_blobs: bool = False
    page: int = 1000
    token_seconds: int = 3600
    link_seconds: float = 86400.0
    models: list[Model] = field(default_factory=list)
    accounts: dict[str, Account] = field(
        default_factory=lambda: {
            PERSONAL: Account("PERSONAL_KEY"),
            SERVICE: Account("SERVICE_KEY"),
            LEGACY: Account("LEGACY", org="nvidia"),
        }
    )
    faults: list[Fault] = field(default_factory=list)
    requests: list[Request] = field(default_factory=list)
    tokens: dict[str, tuple[str, float]] = field(default_factory=dict)
    links: dict[str, float] = field(default_factory=dict)
    clients: set[Any] = field(default_factory=set)
    lock: threading.Condition = field(default_factory=threading.Condition)
    port: int = 0
    _sent: Counter[str] = field(default_factory=Counter)
    _busy: int = 0

    @cached_property
    def certificates(self) -> certificates.Certificates:
        """What its servers show."""
        return certificates.make(self.folder)

    @cached_property
    def api(self) -> Server:
        """The host that knows."""
        return Server(self, "127.0.0.1", self.port, secure=True)

    @cached_property
    def blobs(self) -> Server:
        """The host that gives."""
        return Server(self, "localhost", 0, secure=not self.plain_blobs)

    @property
    def environment(self) -> dict[str, str]:
        """The variables that lead ngcsdk and requests here."""
        return {
            "NGC_CLI_API_URL": self.api.url,
            "NGC_CLI_AUTH_URL": self.api.url,
            "REQUESTS_CA_BUNDLE": str(self.certificates.authority),
        }

    @contextmanager
    def running(self) -> Iterator[Ngc]:
        """Serve until the end of the block."""
        servers = (self.api, self.blobs)
        for server in servers:
            threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        try:
            yield self
        finally:
            for server in servers:
                server.shutdown()
                server.server_close()

    def reset(self) -> None:
        """Forget all that a test has told it, and what it has seen.

        What is still being answered, to a client that has left, must not be counted as the next's.
        """
        self._settle()
        fresh = Ngc(self.folder)
        self.page, self.link_seconds = fresh.page, fresh.link_seconds
        self.token_seconds = fresh.token_seconds
        names = ("models", "faults", "requests", "tokens", "links", "accounts", "clients", "_sent")
        for name in names:
            setattr(self, name, getattr(fresh, name))

    def offer(self, *models: Model) -> None:
        """Have these models."""
        self.models += models

    def fail(self, *faults: Fault) -> None:
        """Let these go wrong."""
        self.faults += faults

    def expire_links(self) -> None:
        """Make every link that was given so far worthless."""
        with self.lock:
            self.links = dict.fromkeys(self.links, 0.0)

    def asked(self, pattern: str) -> list[Request]:
        """Return the requests whose path matches."""
        return [request for request in self.requests if re.search(pattern, request.path)]

    @property
    def sent(self) -> Counter[str]:
        """How many bytes of each file's content were sent, once nothing is being answered.

        A client may have the last bytes before they are counted.
        """
        self._settle()
        return self._sent

    def _settle(self) -> None:
        """Wait until nothing is being answered."""
        with self.lock:
            assert self.lock.wait_for(lambda: not self._busy, 100)

    def count(self, name: str, size: int) -> None:
        """Count bytes of a file as sent."""
        with self.lock:
            self._sent[name] += size

    @contextmanager
    def answering(self) -> Iterator[None]:
        """Be busy with a request."""
        with self.lock:
            self._busy += 1
        try:
            yield
        finally:
            with self.lock:
                self._busy -= 1
                self.lock.notify_all()

    def strike(self, path: str) -> list[Fault]:
        """Return the faults that meet this request."""
        with self.lock:
            return [fault for fault in self.faults if fault.meets(path)]

    def find(self, owner: str, name: str, version: str = "") -> Model | None:
        """Return a model, any version of it where none is named."""
        for model in self.models:
            if (model.owner, model.name) == (owner, name) and version in {"", model.version}:
                return model
        return None

    def account(self, authorization: str) -> Account | None:
        """Return whose key or token a header shows."""
        bearer = authorization.removeprefix("Bearer ")
        key, until = self.tokens.get(bearer, (bearer, math.inf))
        account = self.accounts.get(key)
        if account is None or until < time.time() or (account.kind == "LEGACY" and key == bearer):
            return None
        return account

    def token(self, key: str) -> dict[str, Any] | None:
        """Return a token for a legacy key."""
        account = self.accounts.get(key)
        if account is None or account.kind != "LEGACY":
            return None
        token = secrets.token_hex(16)
        self.tokens[token] = (key, time.time() + self.token_seconds)
        return {"token": token, "expires_in": self.token_seconds}

    def link(self, model: Model, path: str) -> str:
        """Return a signed link to a file."""
        signature = secrets.token_hex(16)
        with self.lock:
            self.links[signature] = time.time() + self.link_seconds
        query = f"Expires={int(self.links[signature])}&Signature={signature}&Key-Pair-Id=TEST"
        place = f"/blob/{model.owner}/{model.name}/{model.version}/{quote(path)}"
        return f"{self.blobs.url}{place}?{query}"


class Server(ThreadingHTTPServer):
    """One of the two hosts."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, ngc: Ngc, name: str, port: int, *, secure: bool) -> None:
        super().__init__(("127.0.0.1", port), Handler)
        self.ngc, self.name = ngc, name
        self.url = f"{'https' if secure else 'http'}://{name}:{self.server_address[1]}"
        self.context: ssl.SSLContext | None = None
        if secure:
            self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            made = ngc.certificates
            self.context.load_cert_chain(made.certificate, made.key)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Count a client before its thread has its turn."""
        self.ngc.clients.add((self.name, client_address))
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Serve one connection."""
        try:
            self._serve(request, client_address)
        finally:
            self.ngc.clients.discard((self.name, client_address))

    def _serve(self, request: Any, client_address: Any) -> None:
        """Shake hands in the thread of the connection, so that nobody keeps others waiting."""
        if self.context is not None:
            try:
                request = self.context.wrap_socket(request, server_side=True)
            except OSError:
                self.shutdown_request(request)
                return
        super().process_request_thread(request, client_address)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of clients that leave."""


class Handler(BaseHTTPRequestHandler):
    """Answers one connection."""

    protocol_version = "HTTP/1.1"
    # Else a body waits 40 ms for its head to be acknowledged.
    disable_nagle_algorithm = True
    server: Server
    faults: list[Fault]

    def log_message(self, *_arguments: Any) -> None:
        """Print nothing."""

    def setup(self) -> None:
        """Give up on clients that send nothing."""
        super().setup()
        self.connection.settimeout(60)

    @property
    def ngc(self) -> Ngc:
        return self.server.ngc

    def do_POST(self) -> None:
        length = int(self.headers.get("Content-Length", "0"))
        form = parse_qs(self.rfile.read(length).decode())
        self._note()
        if self._spoiled():
            return
        account = self.ngc.accounts.get(form.get("credentials", [""])[0])
        if account is None or account.kind == "LEGACY":
            self._refuse(401, "Invalid credentials")
            return
        roles = [{"org": {"name": account.org}, "orgRoles": ["REGISTRY_READ"]}]
        user = {"id": 1, "email": "someone@example.com", "roles": roles}
        info = {"type": account.kind, "orgName": account.org}
        self._json({**info, "user": user} if account.kind == "PERSONAL_KEY" else info)

    def do_GET(self) -> None:
        with self.ngc.answering():
            self._note()
            if self._spoiled():
                return
            if self.server is self.ngc.blobs:
                self._blob()
            elif self._path == "/token":
                self._token()
            else:
                self._api()

    def _note(self) -> None:
        parts = urlsplit(self.path)
        self._path, self._query = unquote(parts.path), parse_qs(parts.query)
        request = Request(self.server.name, self._path, self._query, dict(self.headers))
        self.ngc.requests.append(request)
        self.faults = self.ngc.strike(self._path)

    def _fault(self, kind: str) -> Fault | None:
        return next((fault for fault in self.faults if fault.kind == kind), None)

    def _spoiled(self) -> bool:
        """Do what a fault does instead of an answer."""
        if status := self._fault("status"):
            after = {"Retry-After": status.header} if status.header else {}
            self._refuse(status.value, "a fault", after)
        elif self._fault("html"):
            self._send(200, b"<html>a portal</html>", {"Content-Type": "text/html"})
        elif redirect := self._fault("redirect"):
            self._send(302, b"", {"Location": f"{redirect.header}{self.path}"})
        elif self._fault("reset"):
            self._hang_up()
        elif self._fault("silence"):
            # Who waits for an answer says nothing: there is something to read once it has left.
            select.select([self.connection], [], [], 60)
            self._hang_up()
        else:
            return False
        return True

    def _hang_up(self) -> None:
        self.close_connection = True
        with suppress(OSError):
            self.connection.close()

    def _token(self) -> None:
        basic = self.headers.get("Authorization", "").removeprefix("Basic ")
        user, _, key = base64.b64decode(basic).decode().partition(":")
        token = self.ngc.token(key) if user == "$oauthtoken" else None
        if token:
            self._json(token)
        else:
            self._refuse(401, "Invalid apikey")

    def _api(self) -> None:
        authorization = self.headers.get("Authorization", "")
        account = self.ngc.account(authorization)
        if authorization and account is None:
            self._refuse(401, "Authentication required")
        elif self._path == "/v2/orgs":
            orgs = [{"name": account.org, "displayName": account.org}] if account else []
            self._json({"organizations": orgs, "paginationInfo": self._pages(len(orgs), 100)})
        elif self._path.endswith("/teams"):
            self._json({"teams": [], "paginationInfo": self._pages(0, 100)})
        else:
            self._registry(account)

    def _registry(self, account: Account | None) -> None:
        """Answer for models."""
        owner, rest = self._owner_and_rest(guest=account is None)
        name, *more = rest or [""]
        if owner not in {model.owner for model in self.ngc.models}:
            self._refuse(404, f"{owner} could not be found")
        elif not name:
            self._json({"models": [], "paginationInfo": self._pages(1, 1)})
        elif self.ngc.find(owner, name) is None:
            self._refuse(404, f"{name} could not be found")
        else:
            self._model(account, owner, name, more)

    def _owner_and_rest(self, *, guest: bool) -> tuple[str, list[str]]:
        """Return who owns what is asked for, and the parts of the path behind."""
        words = self._path.strip("/").split("/")[1:]
        if guest and words[:2] == ["models", "org"]:
            team = [words[4]] if words[3:4] == ["team"] else []
            return "/".join([words[2], *team]), words[3 + 2 * len(team) :]
        if guest and words[:1] == ["models"]:
            owners = {model.owner for model in self.ngc.models}
            size = 2 if "/".join(words[1:3]) in owners else 1
            return "/".join(words[1 : 1 + size]), words[1 + size :]
        team = [words[3]] if words[2:3] == ["team"] else []
        return "/".join([*words[1:2], *team]), words[3 + 2 * len(team) :]

    def _model(self, account: Account | None, owner: str, name: str, rest: list[str]) -> None:
        """Answer for one model."""
        any_version = self.ngc.find(owner, name)
        assert any_version is not None
        if account is None and not any_version.guests:
            self._problem(403, "Artifact is not Guest accessible!")
        elif account is not None and owner not in account.owners:
            self._refuse(403, "Access denied: no entitlement")
        elif not rest:
            self._json({"model": {"name": name, "latestVersionIdStr": any_version.version}})
        elif rest == ["versions"]:
            rows = [self._row(m) for m in self.ngc.models if (m.owner, m.name) == (owner, name)]
            self._json({"modelVersions": rows, "paginationInfo": self._pages(len(rows), 100)})
        else:
            self._version(owner, name, rest)

    def _version(self, owner: str, name: str, rest: list[str]) -> None:
        """Answer for one version: what is known, its files, or links to them."""
        listed = rest[0] == "versions"
        version, *more = rest[1:] if listed else rest
        model = self.ngc.find(owner, name, version)
        if model is None:
            self._refuse(404, f"{name}:{version} could not be found")
        elif not more:
            self._json({"modelVersion": self._row(model)})
        elif not model.licence_accepted:
            self._refuse(412, "License terms have to be accepted")
        elif listed:
            self._files(model)
        else:
            names = self._query.get("path", list(model.files))
            self._json({"filepath": names, "urls": [self.ngc.link(model, n) for n in names]})

    def _row(self, model: Model) -> dict[str, Any]:
        return {"versionId": model.version, "status": model.status}

    def _files(self, model: Model) -> None:
        """Answer with one page of the list of files."""
        size = min(self.ngc.page, int(self._query.get("page-size", ["100"])[0]))
        page = int(self._query.get("page-number", ["0"])[0])
        names = list(model.files)[page * size : (page + 1) * size]
        rows = [_listed(name, model.files[name], hashes=model.hashes) for name in names]
        pages = self._pages(len(model.files), size)
        pages["index"] = page
        self._json({"modelFiles": rows, "paginationInfo": pages})

    def _pages(self, count: int, size: int) -> dict[str, Any]:
        return {"totalResults": count, "size": size, "totalPages": max(1, math.ceil(count / size))}

    def _blob(self) -> None:
        """Answer with bytes of a file."""
        signature = self._query.get("Signature", [""])[0]
        if self._fault("expire"):
            self.ngc.expire_links()
        if self.ngc.links.get(signature, 0.0) < time.time():
            self._send(403, b"<Error><Code>AccessDenied</Code></Error>", {})
            return
        org, team, name, version, *path = self._path.removeprefix("/blob/").split("/")
        model = self.ngc.find(f"{org}/{team}", name, version)
        assert model is not None
        self._bytes("/".join(path), model.files["/".join(path)])

    def _bytes(self, name: str, data: bytes) -> None:
        """Answer with the range that is asked for, or with what a fault makes of it."""
        total = len(data) + (1 if self._fault("resized") else 0)
        match = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        start, stop, status = 0, len(data), 200
        headers = {"Content-Type": "application/octet-stream", "Accept-Ranges": "bytes"}
        if match and not self._fault("ignore_range"):
            start, stop, status = int(match[1]), min(len(data), int(match[2]) + 1), 206
            if start >= len(data):
                self._send(416, b"", {"Content-Range": f"bytes */{total}"})
                return
            shift = 1 if self._fault("shifted") else 0
            headers["Content-Range"] = f"bytes {start + shift}-{stop - 1 + shift}/{total}"
        length = stop - start if status == 206 else total
        self._head(status, length, headers)
        self._body(name, data, start, stop)

    def _body(self, name: str, data: bytes, start: int, stop: int) -> None:
        """Send bytes, and count them."""
        corrupt, cut, drip = map(self._fault, ("corrupt", "cut", "drip"))
        limit = min(stop, start + cut.value) if cut else stop
        view = memoryview(data)
        while start < limit:
            size = max(1, drip.value // _DRIPS) if drip else _CHUNK
            chunk = bytes(view[start : min(limit, start + size)])
            if corrupt and start <= corrupt.value < start + len(chunk):
                at = corrupt.value - start
                chunk = chunk[:at] + bytes([chunk[at] ^ 1]) + chunk[at + 1 :]
            self.wfile.write(chunk)
            self.ngc.count(name, len(chunk))
            start += len(chunk)
            if drip:
                time.sleep(1 / _DRIPS)
        if cut and start < stop:
            self._hang_up()

    def _refuse(self, code: int, why: str, headers: dict[str, str] | None = None) -> None:
        status = {"statusCode": "ERROR", "statusDescription": why, "requestId": "1"}
        body = json.dumps({"requestStatus": status}).encode()
        self._send(code, body, {"Content-Type": "application/json", **(headers or {})})

    def _problem(self, code: int, why: str) -> None:
        body = json.dumps({"title": "Forbidden", "status": code, "detail": why}).encode()
        self._send(code, body, {"Content-Type": "application/problem+json"})

    def _json(self, data: object) -> None:
        self._send(200, json.dumps(data).encode(), {"Content-Type": "application/json"})

    def _send(self, code: int, body: bytes, headers: dict[str, str]) -> None:
        self._head(code, len(body), headers)
        self.wfile.write(body)

    def _head(self, code: int, length: int, headers: dict[str, str]) -> None:
        self.send_response(code)
        for name, value in {**headers, "Content-Length": str(length)}.items():
            self.send_header(name, value)
        self.end_headers()


def _listed(name: str, data: bytes, *, hashes: bool) -> dict[str, Any]:
    """Return one file as the list of files has it."""
    row: dict[str, Any] = {
        "path": name,
        "sizeInBytes": len(data),
        "createdDate": "2026-01-01T00:00:00.000Z",
    }
    return {**row, "sha256_base64": _digest(data)} if hashes else row


@lru_cache(maxsize=32)
def _digest(data: bytes) -> str:
    """Return the SHA-256 as NGC writes it."""
    return base64.b64encode(hashlib.sha256(data).digest()).decode()


def main() -> None:
    """Serve files as one model until Ctrl-C."""
    parser = argparse.ArgumentParser(description="A stand-in for NGC, on this machine.")
    parser.add_argument("files", nargs="+", type=Path, help="the files of its one model")
    parser.add_argument("--port", type=int, default=8443, help="the port of the API")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        ngc = Ngc(Path(folder), port=arguments.port)
        model = Model({path.name: path.read_bytes() for path in arguments.files})
        ngc.offer(model)
        for name, value in {**ngc.environment, "NGC_API_KEY": PERSONAL}.items():
            print(f"export {name}={value}")  # noqa: T201 - for a shell's eval
        print(f"# riva-qs --set image=riva --set models_asr={model.target} init", flush=True)  # noqa: T201 - as above
        with ngc.running(), suppress(KeyboardInterrupt):
            threading.Event().wait()


if __name__ == "__main__":
    main()
