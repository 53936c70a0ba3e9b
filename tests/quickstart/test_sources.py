from __future__ import annotations

import hashlib
import socket
import threading
from typing import TYPE_CHECKING

import pytest
import requests
import urllib3

from quickstart import sources, transfer
from quickstart.catalog import Artifact, wanted
from quickstart.config import Settings
from quickstart.errors import (
    ArtifactMissingError,
    IntegrityError,
    NetworkError,
    NotAuthorisedError,
    RivaQsError,
    UsageError,
)
from quickstart.sources import key
from quickstart.sources.failures import network_error, shown, wait_of
from quickstart.sources.http import HttpSource
from quickstart.sources.network import Network
from quickstart.transfer.patience import Patience
from support.fetching import LIMITS
from support.ngc import Fault, Model, Ngc

if TYPE_CHECKING:
    from pathlib import Path

    from .conftest import CommandLine

DATA = bytes(range(256)) * 1000
DIGEST = hashlib.sha256(DATA).hexdigest()
IMPATIENT = Network(silence=60, patience=Patience(tries=2, first=0.01))


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home with a key of the official tools."""
    folder = tmp_path / "home" / ".ngc"
    folder.mkdir(parents=True)
    (folder / "config").write_text("; a comment\n[CURRENT]\napikey = nvapi-home\norg = nvidia\n")
    return folder.parent


class TestKey:
    """Where the NGC key comes from."""

    def test_the_strongest_place_wins(self, home: Path, tmp_path: Path) -> None:
        """Each place wins over those below, says its name, and names who lost."""
        (tmp_path / "one").write_text("nvapi-one\n")
        (tmp_path / "two").write_text("nvapi-two\n")
        environ = {
            "NGC_API_KEY": "nvapi-environment",
            "NGC_CLI_API_KEY": "nvapi-cli",
            "NGC_API_KEY_FILE": str(tmp_path / "one"),
            "NGC_CLI_API_KEY_FILE": str(tmp_path / "two"),
            "HOME": str(home),
        }
        settings = Settings(ngc_api_key="nvapi-environment")
        won = []
        for name in [*environ]:
            found = key.find(settings, environ)
            won.append((found.secret, found.origin.split(" ")[0]))
            assert len(found.ignored) == len(environ) - 1
            assert "nvapi-" not in repr(found) + found.note
            del environ[name]
            settings = Settings()
            environ.setdefault("HOME", str(home))
        assert won == [
            ("nvapi-environment", "NGC_API_KEY"),
            ("nvapi-cli", "NGC_CLI_API_KEY"),
            ("nvapi-one", "NGC_API_KEY_FILE"),
            ("nvapi-two", "NGC_CLI_API_KEY_FILE"),
            ("nvapi-home", f"{home}/.ngc/config"),
        ]

    @pytest.mark.parametrize(
        ("environ", "origin"),
        [
            ({"RIVA_QS_NGC_API_KEY": "nvapi-x"}, "RIVA_QS_NGC_API_KEY"),
            ({"NGC_API_KEY": "nvapi-other"}, "NGC_API_KEY of the configuration"),
            ({}, "NGC_API_KEY of the configuration"),
        ],
    )
    def test_the_setting_says_who_gave_it(self, environ: dict[str, str], origin: str) -> None:
        """A key of the file or the command line is not said to be the environment's."""
        assert key.find(Settings(ngc_api_key="nvapi-x"), environ).origin == origin

    @pytest.mark.parametrize(
        ("secret", "kind"),
        [
            ("nvapi-abc", "personal or service"),
            ("bGVnYWN5a2V5", "legacy"),
            ("eyJhbGciOiJub25l.eyJleHAiOjQxMDI0.c2lnbmF0dXJl", "token"),
            ("", "guest"),
        ],
    )
    def test_the_kind_is_told(self, secret: str, kind: str, tmp_path: Path) -> None:
        """The shape of a key says of what kind it is."""
        assert key.find(Settings(ngc_api_key=secret), {"HOME": str(tmp_path)}).kind == kind

    @pytest.mark.parametrize("text", [" nvapi-x\n", '"nvapi-x"', "'nvapi-x'\r\n"])
    def test_what_copying_adds_is_taken_off(self, text: str, tmp_path: Path) -> None:
        """Quotes and line ends are no part of a key."""
        (tmp_path / "key").write_text(text)
        environ = {"NGC_API_KEY_FILE": str(tmp_path / "key")}
        assert key.find(Settings(), environ).secret == "nvapi-x"

    @pytest.mark.parametrize("text", ["nvapi-x y", "nvapi-ключ", "nvapi\tx"])
    def test_what_cannot_be_a_key_is_told(self, text: str) -> None:
        """A key with a space or a foreign letter is refused, and not shown."""
        with pytest.raises(UsageError, match="NGC_CLI_API_KEY holds is no NGC key") as caught:
            key.find(Settings(), {"NGC_CLI_API_KEY": text})
        assert text not in caught.value.message + caught.value.hint

    def test_a_key_file_that_is_not_there_is_told(self, tmp_path: Path) -> None:
        """A file that was named must be readable."""
        with pytest.raises(UsageError, match=r"cannot read the NGC key in .*nowhere: No such file"):
            key.find(Settings(), {"NGC_API_KEY_FILE": str(tmp_path / "nowhere")})

    @pytest.mark.parametrize("text", ["apikey = x\n", "[CURRENT\napikey", "[CURRENT]\n=\n"])
    def test_a_damaged_config_is_told(self, home: Path, text: str) -> None:
        """The official tools' file is named when it cannot be read."""
        (home / ".ngc" / "config").write_text(text)
        with pytest.raises(UsageError, match=r"\.ngc/config is not a configuration"):
            key.find(Settings(), {"HOME": str(home)})

    def test_other_sections_do_not_count(self, home: Path) -> None:
        """Only [CURRENT] holds the key in use."""
        (home / ".ngc" / "config").write_text("[OLD]\napikey = nvapi-old\n")
        assert not key.find(Settings(), {"HOME": str(home)}).secret

    def test_ngc_cli_home_is_where_the_config_is(self, home: Path) -> None:
        """NGC_CLI_HOME moves the official tools' folder, for us too."""
        environ = {"HOME": "/nowhere", "NGC_CLI_HOME": str(home)}
        assert key.find(Settings(), environ).secret == "nvapi-home"


class TestAddresses:
    """https:// and file:// addresses with a hash."""

    def artifact(self, ngc: Ngc, text: str = "") -> Artifact:
        """Return the artefact of an address, which the stand-in serves."""
        model = Model({"a.rmir": DATA})
        ngc.offer(model)
        reference = text or ngc.link(model, "a.rmir")
        return Artifact("asr", "", "", "a", "1", "http", reference, "a.rmir", 0, DIGEST)

    @pytest.mark.parametrize("faults", [[], [Fault("ignore_range", times=-1)]])
    def test_an_address_is_fetched(self, ngc: Ngc, tmp_path: Path, faults: list[Fault]) -> None:
        """The size comes from the server and the hash from the address, with ranges or without."""
        ngc.fail(*faults)
        artifact = self.artifact(ngc)
        source = sources.source_of(artifact, Settings())
        (file,) = source.files(artifact)
        assert (file.name, file.size, file.sha256) == ("a.rmir", len(DATA), DIGEST)
        transfer.fetch(source, artifact, file, tmp_path / "a.rmir", lambda _: None, LIMITS)
        assert (tmp_path / "a.rmir").read_bytes() == DATA

    @pytest.mark.parametrize(
        ("code", "kind"),
        [
            (401, NotAuthorisedError),
            (403, NotAuthorisedError),
            (404, ArtifactMissingError),
            (410, ArtifactMissingError),
            (429, NetworkError),
            (503, NetworkError),
            (400, RivaQsError),
        ],
    )
    def test_refusals_are_told_apart(self, ngc: Ngc, code: int, kind: type[RivaQsError]) -> None:
        """Each status code is the error that it stands for, without the address's secrets."""
        artifact = self.artifact(ngc)
        ngc.fail(Fault("status", value=code, times=-1))
        with pytest.raises(kind, match=f"answers {code}") as caught:
            HttpSource(IMPATIENT).files(artifact)
        assert type(caught.value) is kind
        assert "Signature" not in caught.value.message

    @pytest.mark.parametrize(
        ("fault", "words"),
        [
            (Fault("reset", times=-1), "broke the connection off"),
            (Fault("redirect", times=-1), "redirects in a circle"),
        ],
    )
    def test_failures_are_told_apart(self, ngc: Ngc, fault: Fault, words: str) -> None:
        """A broken connection and a circle are different errors."""
        artifact = self.artifact(ngc)
        ngc.fail(Fault(**vars(fault)))
        with pytest.raises(NetworkError, match=words):
            HttpSource(IMPATIENT).files(artifact)

    def test_silence_is_told(self, ngc: Ngc) -> None:
        """Who says nothing is given up, and told as that."""
        artifact = self.artifact(ngc)
        ngc.fail(Fault("silence", times=-1))
        with pytest.raises(NetworkError, match="sends nothing"):
            HttpSource(Network(silence=0.5, patience=IMPATIENT.patience)).files(artifact)

    def test_a_wrong_hash_is_an_integrity_error(self, ngc: Ngc, tmp_path: Path) -> None:
        """A file that is not what the address promised does not take the name."""
        artifact = self.artifact(ngc)
        source = HttpSource(IMPATIENT)
        (file,) = source.files(artifact)
        wrong = sources.SourceFile(file.name, file.size, "00" * 32)
        with pytest.raises(IntegrityError):
            transfer.fetch(source, artifact, wrong, tmp_path / "a.rmir", lambda _: None, LIMITS)
        assert not list(tmp_path.glob("a.rmir*"))

    def test_a_local_file_is_copied(self, tmp_path: Path) -> None:
        """A file:// address is verified as any other."""
        (tmp_path / "my models").mkdir()
        (tmp_path / "my models" / "a.rmir").write_bytes(DATA)
        url = f"file://{tmp_path}/my%20models/a.rmir#sha256={DIGEST}"
        (artifact,) = wanted(Settings(models_asr=(url,)))
        source = sources.source_of(artifact, Settings(offline=True))
        (file,) = source.files(artifact)
        transfer.fetch(source, artifact, file, tmp_path / "out" / "a.rmir", lambda _: None)
        assert (tmp_path / "out" / "a.rmir").read_bytes() == DATA

    def test_a_local_file_that_is_not_there_is_told(self, tmp_path: Path) -> None:
        """A file:// address that leads nowhere is named."""
        (artifact,) = wanted(Settings(models_asr=(f"file://{tmp_path}/a.rmir#sha256={DIGEST}",)))
        with pytest.raises(ArtifactMissingError, match=f"there is no file {tmp_path}/a.rmir"):
            sources.source_of(artifact, Settings()).files(artifact)


def test_the_key_is_told_where_one_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before NGC is asked, people are told which key is used; for other sources there is none."""
    monkeypatch.setenv("NGC_CLI_API_KEY", "nvapi-x")
    settings = Settings(models_asr=("nvidia/riva/rmir_a:1",))
    (line,) = sources.notes(wanted(settings), settings)
    assert line.startswith("NGC: personal or service key from NGC_CLI_API_KEY")
    assert not sources.notes(wanted(Settings()), Settings())


class TestOffline:
    """offline=true."""

    @pytest.mark.parametrize(
        "reference", ["nvidia/riva/rmir_a:1", f"https://example.com/a.rmir#sha256={DIGEST}"]
    )
    def test_the_network_is_not_asked(
        self, monkeypatch: pytest.MonkeyPatch, reference: str
    ) -> None:
        """What is elsewhere is an error at once, and no socket is opened."""
        settings = Settings(models_asr=(reference,), offline=True)
        (artifact,) = wanted(settings)
        monkeypatch.setattr(socket, "socket", None)
        with pytest.raises(ArtifactMissingError, match="offline=true forbids") as caught:
            sources.source_of(artifact, settings)
        assert "bundle" in caught.value.hint
        assert not sources.notes([artifact], settings)

    def test_the_flag_is_the_key(self, bare: CommandLine) -> None:
        """`riva-qs --offline` is `--set offline=true`."""
        shown = bare.json("--offline", "config", "show")["settings"]["offline"]
        assert shown == {"value": True, "origin": "--set"}

    def test_what_is_embedded_needs_no_network(self, qs: CommandLine) -> None:
        """The embedded models are there with no network."""
        done = qs("--offline", "--set", "use_existing_rmirs=false", "init", "--dry-run")
        assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        *(("", 0), ("7", 7), ("soon", 0), ("Wed, 21 Oct 2015 07:28:00 GMT", 0), ("-3", 0)),
        (f"Wed, 21 Oct 2015 07:28:00 +{'9' * 20}", 0),
    ],
)
def test_retry_after_is_read_in_both_forms(header: str, seconds: float) -> None:
    """The header is a number of seconds or a date; what is past or nonsense asks for nothing."""
    assert wait_of(header) == seconds


def test_pauses_grow_and_end() -> None:
    """Pauses double, are never all the same, stay below their limit, and end."""
    patience = Patience(tries=8, first=1.0, longest=10.0)
    error = NetworkError("busy")
    pauses = [patience.pause(n, error) for n in range(1, 8)]
    ceilings = (1, 2, 4, 8, 10, 10, 10)
    assert all(c / 2 <= p <= c for p, c in zip(pauses, ceilings, strict=True))
    assert patience.pause(1, NetworkError("busy", wait=9)) == 9
    for bad in (NetworkError("x", lasting=True), NetworkError("x", wait=11)):
        with pytest.raises(NetworkError):
            patience.pause(1, bad)
    with pytest.raises(NetworkError):
        patience.pause(8, error)


@pytest.mark.parametrize(
    "head",
    [
        f"200 OK\r\nContent-Length: {'9' * 5000}",
        f"206 Partial Content\r\nContent-Range: bytes 0-0/{'9' * 5000}",
    ],
)
def test_a_size_without_end_is_one_error(head: str) -> None:
    """A server that names a number of thousands of digits is told like one that names none."""

    def answer(listener: socket.socket) -> None:
        connection, _ = listener.accept()
        with connection:
            connection.recv(1 << 16)
            connection.sendall(f"HTTP/1.1 {head}\r\nConnection: close\r\n\r\n".encode())

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=answer, args=(listener,), daemon=True).start()
        with pytest.raises(RivaQsError):
            Network(silence=60).size_of(f"http://127.0.0.1:{listener.getsockname()[1]}/a")


def test_addresses_are_shown_without_secrets() -> None:
    """A query may be a signature, and what stands before @ a password."""
    assert shown("https://u:p@host:8443/a/b?Signature=x#y") == "https://host:8443/a/b"


def test_every_kind_of_network_failure_is_translated() -> None:
    """Whatever requests and urllib3 may raise becomes an error with a sentence."""
    for module in (requests.exceptions, urllib3.exceptions):
        for kind in vars(module).values():
            if not (isinstance(kind, type) and issubclass(kind, Exception)):
                continue
            if issubclass(kind, Warning):
                continue
            error = kind.__new__(kind)
            assert isinstance(network_error(error, "https://host/x"), RivaQsError), kind
