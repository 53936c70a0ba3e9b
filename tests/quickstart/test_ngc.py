"""NGC, with ngcsdk's own authentication against the stand-in."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from quickstart import transfer
from quickstart.errors import (
    ArtifactMissingError,
    IntegrityError,
    NetworkError,
    NotAuthorisedError,
    RivaQsError,
)
from support import fetching
from support.fetching import ARTIFACT, LIMITS, source
from support.ngc import LEGACY, PERSONAL, SERVICE, Account, Fault, Model, Ngc

if TYPE_CHECKING:
    from pathlib import Path

DATA = bytes(range(256)) * 1000
JWT = "eyJhbGciOiJub25lIn0.eyJleHAiOjQxMDI0NDQ4MDB9.c2lnbmF0dXJl"


@pytest.fixture(autouse=True)
def model(ngc: Ngc) -> Model:
    """The model that the stand-in offers."""
    offered = Model({"a.rmir": DATA, "README.md": b"text", "metadata/info.json": b"{}"})
    ngc.offer(offered)
    return offered


@pytest.mark.parametrize("secret", [PERSONAL, SERVICE, LEGACY, JWT])
def test_every_kind_of_key_fetches(ngc: Ngc, tmp_path: Path, secret: str) -> None:
    """Personal, service and legacy keys and tokens fetch, and show only where they must."""
    ngc.accounts[JWT] = Account("JWT")
    here = source(secret)
    files = here.files(ARTIFACT)
    assert (files[0].name, files[0].size) == ("a.rmir", len(DATA))
    transfer.fetch(here, ARTIFACT, files[0], tmp_path / "a.rmir", lambda _: None, LIMITS)
    assert (tmp_path / "a.rmir").read_bytes() == DATA
    exchanged = bool(ngc.asked("^/token$"))
    assert exchanged == (secret == LEGACY)
    for request in ngc.asked("^/v2/"):
        assert (request.headers["Authorization"] == f"Bearer {secret}") != exchanged
    assert bool(ngc.asked("get-caller-info")) == secret.startswith("nvapi-")


def test_a_token_is_for_the_model_s_owner(ngc: Ngc) -> None:
    """A legacy key is exchanged for a token of the organisation and the team."""
    source(LEGACY).files(ARTIFACT)
    scopes = ngc.asked("^/token$")[-1].query["scope"]
    assert scopes == ["group/ngc:nvidia", "group/ngc:nvidia/riva"]


def test_a_token_that_ran_out_is_renewed(ngc: Ngc, tmp_path: Path) -> None:
    """When the token expires between list and link, a new one is asked for."""
    here = source(LEGACY)
    files = here.files(ARTIFACT)
    ngc.tokens.clear()
    transfer.fetch(here, ARTIFACT, files[0], tmp_path / "a.rmir", lambda _: None, LIMITS)
    assert (tmp_path / "a.rmir").read_bytes() == DATA


def test_a_list_may_have_many_pages(ngc: Ngc) -> None:
    """All pages of the list of files are read."""
    ngc.page = 1
    assert len(source().files(ARTIFACT)) == 3


def test_an_organisation_needs_no_team(ngc: Ngc) -> None:
    """A model may belong to an organisation itself."""
    ngc.offer(Model({"b.rmir": b"b"}, owner="nvidia", name="plain"))
    ngc.accounts[PERSONAL].owners += ("nvidia",)
    (file,) = source().files(replace(ARTIFACT, reference="nvidia/plain:1.0"))
    assert file.name == "b.rmir"


def test_a_guest_gets_what_is_open(ngc: Ngc, model: Model, tmp_path: Path) -> None:
    """Without a key, models that are open to guests are fetched, and nothing is written at home."""
    model.guests = True
    here = source("")
    files = here.files(ARTIFACT)
    transfer.fetch(here, ARTIFACT, files[0], tmp_path / "a.rmir", lambda _: None, LIMITS)
    assert not any("Authorization" in request.headers for request in ngc.requests)
    assert not list((tmp_path / "ngc-home").iterdir())


def refuse(ngc: Ngc, secret: str = PERSONAL, reference: str = ARTIFACT.reference) -> RivaQsError:
    """Return the error of listing the files of a model."""
    with pytest.raises(RivaQsError) as caught:
        source(secret).files(replace(ARTIFACT, reference=reference))
    assert not secret or secret not in caught.value.message + caught.value.hint
    assert caught.value.hint
    assert ngc.requests
    return caught.value


@pytest.mark.parametrize(
    ("secret", "kind"), [("nvapi-unknown", "personal or service"), ("unknown", "legacy")]
)
def test_an_unknown_key_is_told(ngc: Ngc, secret: str, kind: str) -> None:
    """401: which key it was, and where to make a new one."""
    error = refuse(ngc, secret)
    assert isinstance(error, NotAuthorisedError)
    assert f"does not accept the {kind} key from NGC_API_KEY" in error.message
    assert "org.ngc.nvidia.com" in error.hint


def test_no_entitlement_is_told(ngc: Ngc) -> None:
    """403 with a key: what the account lacks, and the keys to check."""
    ngc.accounts[PERSONAL].owners = ()
    error = refuse(ngc)
    assert isinstance(error, NotAuthorisedError)
    assert "may not read nvidia/riva/rmir_asr_test" in error.message
    assert "no entitlement" in error.message
    assert "riva_ngc_org" in error.hint


def test_no_key_is_told(ngc: Ngc, monkeypatch: pytest.MonkeyPatch) -> None:
    """403 without a key: where one was looked for, and what sudo does."""
    monkeypatch.setenv("NGC_API_KEY", "")
    error = refuse(ngc, "")
    assert isinstance(error, NotAuthorisedError)
    assert "not Guest accessible" in error.message
    assert "NGC_CLI_API_KEY_FILE" in error.message
    assert "NGC_API_KEY is set but empty" in error.message


def test_a_licence_to_accept_is_told(ngc: Ngc, model: Model) -> None:
    """412: the page where the licence is accepted."""
    model.licence_accepted = False
    error = refuse(ngc)
    assert isinstance(error, NotAuthorisedError)
    assert "licence" in error.message
    page = "https://catalog.ngc.nvidia.com/orgs/nvidia/teams/riva/models/rmir_asr_test?version=1.0"
    assert error.hint.endswith(page)


@pytest.mark.parametrize(
    ("reference", "words"),
    [
        ("nvidia/riva/rmir_asr_test:9.9", 'has no version "9.9" at NGC; it has 1.0'),
        ("nvidia/riva/rmir_other:1.0", 'nvidia/riva has no model "rmir_other"'),
        ("nvidia/nobody/rmir_other:1.0", 'no organisation or team "nvidia/nobody"'),
        ("nobody/rmir_other:1.0", 'no organisation or team "nobody"'),
    ],
)
@pytest.mark.parametrize("secret", [PERSONAL, LEGACY, ""])
def test_what_does_not_exist_is_told(
    ngc: Ngc, model: Model, secret: str, reference: str, words: str
) -> None:
    """404: whether it is the version, the model or the owner that is not there."""
    model.guests = True
    error = refuse(ngc, secret, reference)
    assert isinstance(error, ArtifactMissingError)
    assert words in error.message


def test_a_version_that_is_still_made_is_told(ngc: Ngc, model: Model) -> None:
    """A version that is not complete is not fetched."""
    model.status = "UPLOAD_PENDING"
    error = refuse(ngc)
    assert isinstance(error, ArtifactMissingError)
    assert "UPLOAD_PENDING" in error.message


def test_a_file_without_a_hash_is_refused(ngc: Ngc, model: Model) -> None:
    """What cannot be verified is not fetched."""
    model.hashes = False
    error = refuse(ngc)
    assert isinstance(error, IntegrityError)
    assert "no SHA-256 for a.rmir" in error.message


@pytest.mark.parametrize("name", ["../evil", "/etc/passwd", "a/../../b", "a//b"])
def test_a_name_that_leaves_the_folder_is_refused(ngc: Ngc, model: Model, name: str) -> None:
    """A list cannot make us write elsewhere."""
    model.files = {name: b"x"}
    assert isinstance(refuse(ngc), IntegrityError)


@pytest.mark.parametrize("secret", [PERSONAL, LEGACY])
@pytest.mark.parametrize(
    ("path", "code"), [("get-caller-info|token", 500), ("versions/1.0", 429), ("versions", 500)]
)
def test_a_busy_ngc_is_asked_again(ngc: Ngc, secret: str, path: str, code: int) -> None:
    """429 and 5xx of the API are tried again before they are an error."""
    ngc.fail(Fault("status", path=path, value=code, header="0", times=1))
    assert len(source(secret).files(ARTIFACT)) == 3
    ngc.fail(Fault("status", path=path, value=code, times=-1))
    error = refuse(ngc, secret)
    assert isinstance(error, NetworkError)
    assert str(code) in error.message


@pytest.mark.parametrize("path", ["get-caller-info|token", "versions/1.0$", "versions/1.0/files"])
@pytest.mark.parametrize(
    ("kind", "words"), [("html", "not JSON"), ("reset", "broke the connection off")]
)
@pytest.mark.parametrize("secret", [PERSONAL, LEGACY])
def test_nonsense_is_an_error(ngc: Ngc, path: str, kind: str, words: str, secret: str) -> None:
    """A portal's page and a connection that breaks are told apart, wherever they happen."""
    ngc.fail(Fault(kind, path=path, times=-1))
    error = refuse(ngc, secret)
    assert isinstance(error, NetworkError)
    assert words in error.message


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"NGC_CLI_API_URL": "https://127.0.0.1:1"}, "127.0.0.1 refuses the connection"),
        ({"NGC_CLI_API_URL": "https://nowhere.invalid"}, "nowhere.invalid cannot be resolved"),
        (
            {"REQUESTS_CA_BUNDLE": "", "CURL_CA_BUNDLE": "", "SSL_CERT_FILE": ""},
            "the certificate of 127.0.0.1 is not trusted",
        ),
        ({"REQUESTS_CA_BUNDLE": "/nowhere/ca.pem"}, "invalid path: /nowhere/ca.pem"),
        ({"HTTPS_PROXY": "http://127.0.0.1:1"}, "the proxy on the way to 127.0.0.1"),
    ],
)
def test_the_way_to_ngc_may_be_closed(
    ngc: Ngc, tmp_path: Path, variables: dict[str, str], words: str
) -> None:
    """A refusal, a name that nobody knows, a certificate and a proxy are told apart."""
    child = fetching.start(tmp_path / "a.rmir", {"NO_PROXY": "", **variables})
    _, errors = child.communicate(timeout=100)
    assert words in errors
    assert "Traceback" not in errors
    assert child.returncode in {1, 2}
    assert not ngc.sent


@pytest.mark.parametrize("name", ["REQUESTS_CA_BUNDLE", "SSL_CERT_FILE"])
def test_a_private_authority_is_trusted(ngc: Ngc, tmp_path: Path, name: str) -> None:
    """The authority that either variable names holds for ngcsdk and for the transfer."""
    authority = str(ngc.certificates.authority)
    none = {"REQUESTS_CA_BUNDLE": "", "CURL_CA_BUNDLE": "", "SSL_CERT_FILE": ""}
    child = fetching.start(tmp_path / "a.rmir", {**none, name: authority})
    _, errors = child.communicate(timeout=100)
    assert (child.returncode, errors) == (0, "")


def test_ngcsdk_is_loaded_late() -> None:
    """Neither the command line nor a source that is not NGC's imports ngcsdk or requests."""
    program = (
        "import sys, quickstart.cli, quickstart.lifecycle, quickstart.transfer, quickstart.sources;"
        "sys.exit(bool({'ngcsdk', 'requests'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
