"""Models in NVIDIA's registry, NGC.

Who we are and what a model has, ngcsdk asks; the transfer is ours: a signed link for each file,
fetched without our key, and asked for again when it expires.
"""

from __future__ import annotations

import threading
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import quote

from quickstart.errors import (
    ArtifactMissingError,
    NetworkError,
    NotAuthorisedError,
    RivaQsError,
)
from quickstart.sources import key as keys
from quickstart.sources.account import Account
from quickstart.sources.failures import StatusError, wait_of
from quickstart.sources.network import Network

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from quickstart.catalog import Artifact
    from quickstart.config import Settings
    from quickstart.sources import Body, SourceFile
    from quickstart.sources.key import Key

T = TypeVar("T")

CATALOG = "https://catalog.ngc.nvidia.com"
_KEYS = "https://org.ngc.nvidia.com/setup/api-keys"
_COMPLETE = "UPLOAD_COMPLETE"
_LINKS = 4
_LINK_HINT = "check this machine's clock; a proxy may be in the way: check HTTPS_PROXY"


@dataclass(frozen=True)
class Target:
    """`org[/team]/name:version`, taken apart."""

    org: str
    team: str
    name: str
    version: str

    @staticmethod
    def of(reference: str) -> Target:
        """Return the parts of a reference that `locators.parse` accepted."""
        path, _, version = reference.rpartition(":")
        org, *team, name = path.split("/")
        return Target(org, "".join(team), name, version)

    @property
    def owner(self) -> str:
        """The organisation, and the team where there is one."""
        return "/".join(filter(None, (self.org, self.team)))

    @property
    def model(self) -> str:
        """The model without its version."""
        return f"{self.owner}/{self.name}"

    @property
    def page(self) -> str:
        """Where people read of it and accept its licence."""
        team = f"/teams/{self.team}" if self.team else ""
        return f"{CATALOG}/orgs/{self.org}{team}/models/{self.name}?version={self.version}"

    def path(self, *, guest: bool) -> str:
        """Return the path of the model in the API, for signed links."""
        team = f"/team/{self.team}" if self.team else ""
        owner = f"org/{self.org}{team}"
        return f"/v2/models/{owner}/{self.name}" if guest else f"/v2/{owner}/models/{self.name}"

    def metadata(self, *, guest: bool) -> str:
        """Return the path of the model in the API, for what is known of it."""
        return f"/v2/models/{self.model}" if guest else self.path(guest=False)


@dataclass
class NgcSource:
    """Fetches models from NGC.

    Attributes:
        key: The key that won.
        account: What asks NGC with it.
    """

    key: Key
    account: Account
    network: Network = field(default_factory=Network)
    _links: dict[tuple[str, str], str] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @classmethod
    def of(cls, settings: Settings) -> NgcSource:
        """Return the source with the key that the settings and the environment give."""
        key = keys.find(settings)
        return cls(key, Account(key, settings.riva_ngc_org))

    def files(self, artifact: Artifact) -> tuple[SourceFile, ...]:
        """Return the files of a model version.

        Raises:
            ArtifactMissingError: There is no such organisation, team, model or version.
            NotAuthorisedError: The key is refused, or may not see it, or a licence is to accept.
        """
        target = Target.of(artifact.reference)
        status = self._ask(target, lambda: self._status(target))
        if status != _COMPLETE:
            raise ArtifactMissingError(
                f"{artifact.reference} is not complete at NGC: {status}", f"see {target.page}"
            )
        files = self._ask(target, lambda: self.account.files(artifact.reference))
        if not files:
            raise ArtifactMissingError(f"{artifact.reference} has no files", f"see {target.page}")
        return files

    def _status(self, target: Target) -> str:
        return self.account.status(target.org, target.team, target.name, target.version)

    @contextmanager
    def open(self, artifact: Artifact, file: SourceFile, start: int, stop: int) -> Iterator[Body]:
        """Give the bytes [start, stop) of a file, by a new link where the old one has expired."""
        with ExitStack() as stack:
            yield self._part(stack, artifact, file, (start, stop))

    def _part(
        self, stack: ExitStack, artifact: Artifact, file: SourceFile, part: tuple[int, int]
    ) -> Body:
        link = ""
        for left in reversed(range(_LINKS)):
            link = self._link(artifact, file, expired=link)
            try:
                return stack.enter_context(self.network.part_of(link, file.size, *part))
            except (NotAuthorisedError, ArtifactMissingError) as error:
                if not left:
                    message = f"new links are refused too: {error.message}"
                    raise type(error)(message, _LINK_HINT) from None
        raise AssertionError

    def _link(self, artifact: Artifact, file: SourceFile, expired: str = "") -> str:
        """Return the signed address of a file; all threads share one while it is good."""
        name = (artifact.reference, file.name)
        with self._lock:
            if self._links.get(name, "") in {"", expired}:
                self._links[name] = self._new_link(Target.of(artifact.reference), file)
            return self._links[name]

    def _new_link(self, target: Target, file: SourceFile) -> str:
        """Ask NGC for the signed address of a file."""
        path = f"{target.path(guest=not self.key.secret)}/{target.version}/files"
        query = f"path={quote(file.name)}"
        answer = self._ask(target, lambda: self._json(target, f"{path}?{query}"))
        urls = answer.get("urls") if isinstance(answer, dict) else None
        if not (isinstance(urls, list) and urls and isinstance(urls[0], str)):
            raise RivaQsError(f"NGC gives no link to {file.name} of {target.model}", target.page)
        return urls[0]

    def _json(self, target: Target, path: str) -> object:
        """Return what the API answers."""
        headers = self.account.headers(target.org, target.team)
        return self.network.answer(f"{self.account.base_url}{path}", headers)

    def _ask(self, target: Target, call: Callable[[], T]) -> T:
        """Return what `call` returns, tried again while NGC is busy, its refusals explained."""

        def once() -> T:
            """Call it once; what NGC refuses becomes an error of ours."""
            try:
                return self._renewing(target, call)
            except StatusError as error:
                raise self._refusal(target, error) from None

        return self.network.patience.patiently(once)

    def _renewing(self, target: Target, call: Callable[[], T]) -> T:
        """Return what `call` returns, with a new token where the old one is not taken any more."""
        try:
            return call()
        except StatusError as error:
            if error.code != 401 or self.key.kind != "legacy":  # noqa: PLR2004 - HTTP
                raise
        self.account.headers(target.org, target.team, renew=True)
        return call()

    def _refusal(self, target: Target, error: StatusError) -> RivaQsError:
        """Return the error that a status code of NGC stands for."""
        explain = {401: self._unknown_key, 403: self._forbidden, 404: self._missing}
        if error.code in explain:
            return explain[error.code](target, error)
        if error.code == 412:  # noqa: PLR2004 - HTTP
            return NotAuthorisedError(
                f"the licence of {target.model} is not accepted yet{_said(error)}",
                f"sign in and accept it, once, at {target.page}",
            )
        if error.code in {408, 425, 429} or error.code >= 500:  # noqa: PLR2004 - HTTP
            message = f"NGC answers {error.code}{_said(error)}"
            return NetworkError(message, "try again later", wait=wait_of(error.wait))
        return RivaQsError(f"NGC answers {error.code} for {target.model}{_said(error)}")

    def _unknown_key(self, _target: Target, error: StatusError) -> RivaQsError:
        """Return the error for a key that NGC does not know."""
        if not self.key.secret:
            return self._forbidden(_target, error)
        return NotAuthorisedError(
            f"NGC does not accept the {self.key.kind} key from {self.key.origin}{_said(error)}",
            f"it may be expired or revoked: make a personal key with NGC Catalog at {_KEYS}",
        )

    def _forbidden(self, target: Target, error: StatusError) -> RivaQsError:
        """Return the error for a model that the key may not see."""
        if not self.key.secret:
            return NotAuthorisedError(
                f"{target.model} is not open to guests, and there is no NGC key"
                f" ({self.key.origin}){_said(error)}",
                f"make a personal key with NGC Catalog at {_KEYS}, and set NGC_API_KEY to it",
            )
        return NotAuthorisedError(
            f"the {self.key.kind} key from {self.key.origin} may not read"
            f" {target.model}{_said(error)}",
            f"its account needs access to Riva, and the key the service NGC Catalog: see"
            f" {target.page}; check riva_ngc_org and riva_ngc_team",
        )

    def _missing(self, target: Target, error: StatusError) -> RivaQsError:
        """Return the error for a model that is not there, naming the part that is wrong."""
        path = target.metadata(guest=not self.key.secret)
        if not self._exists(target, path):
            owner = path.removesuffix(f"/{target.name}")
            if not self._exists(target, f"{owner}?page-size=1"):
                message = f'NGC knows no organisation or team "{target.owner}"{_said(error)}'
                return ArtifactMissingError(message, "check riva_ngc_org and riva_ngc_team")
            message = f'{target.owner} has no model "{target.name}" at NGC{_said(error)}'
            return ArtifactMissingError(message, f"see {CATALOG}, and check the model's name")
        there = ", ".join(self._versions(target, path)) or "none"
        return ArtifactMissingError(
            f'{target.model} has no version "{target.version}" at NGC; it has {there}',
            "set riva_ngc_model_version to one of these",
        )

    def _exists(self, target: Target, path: str) -> bool:
        """Say whether the API answers at a path."""
        try:
            self._json(target, path)
        except StatusError as error:
            return error.code != 404  # noqa: PLR2004 - HTTP
        return True

    def _versions(self, target: Target, path: str) -> list[str]:
        """Return the versions of a model, as far as NGC tells."""
        try:
            answer = self._json(target, f"{path}/versions?page-size=100")
        except StatusError:
            return []
        rows = answer.get("modelVersions") if isinstance(answer, dict) else None
        rows = rows if isinstance(rows, list) else []
        return [str(row.get("versionId", "")) for row in rows if isinstance(row, dict)]


def _said(error: StatusError) -> str:
    """Return NGC's own words, where it has any."""
    return f' (NGC: "{error.detail}")' if error.detail else ""
