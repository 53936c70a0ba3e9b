"""No key, password or signature in anything that riva-qs prints or writes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from support.ngc import LEGACY, PERSONAL, Fault, Model, Ngc

if TYPE_CHECKING:
    from .conftest import CommandLine

DEPLOY_KEY, PROXY_PASSWORD = "tlt_encode_of_mine", "pass-of-the-proxy"
SECRETS = (PERSONAL, LEGACY, DEPLOY_KEY, PROXY_PASSWORD, "Signature=", "Bearer ")


@pytest.fixture
def remote(qs: CommandLine, ngc: Ngc) -> CommandLine:
    """The command line, whose model comes from NGC."""
    model = Model({"a.rmir": b"an archive of NGC"})
    ngc.offer(model)
    (qs.location / "rmir" / "mine.rmir").unlink()
    qs.options = ["--set", "use_existing_rmirs=false", "--set", f"models_asr={model.target}"]
    qs.environment |= {**ngc.environment, "MODEL_DEPLOY_KEY": DEPLOY_KEY, "NGC_API_KEY": PERSONAL}
    return qs


def check(qs: CommandLine, *outputs: str) -> None:
    """Fail when a secret is in an output, or in any file that was written."""
    files = (path for path in qs.folder.rglob("*") if path.is_file())
    texts = [*outputs, *(path.read_bytes().decode("latin-1") for path in files)]
    for text in texts:
        assert [secret for secret in SECRETS if secret in text] == [], text


def test_what_works_tells_no_secret(remote: CommandLine) -> None:
    """Commands that work with a key neither print it nor write it down."""
    outputs = []
    for command in (
        ("config", "show", "--origin"),
        ("--json", "config", "show"),
        ("config", "validate"),
        ("--json", "init", "--dry-run"),
        ("init",),
        ("bundle", "export", "a.bundle"),
        ("status",),
    ):
        done = remote(*command)
        assert done.returncode in {0, 6}, done.stderr
        outputs += [done.stdout, done.stderr]
    check(remote, *outputs)


@pytest.mark.parametrize("prefix", ["", "RIVA_QS_"])
def test_a_server_is_given_no_key(qs: CommandLine, prefix: str) -> None:
    """No key is in a server's environment, by whichever of its names it came."""
    names = ("MODEL_DEPLOY_KEY", "NGC_API_KEY", "RIVA_API_KEY")
    qs.environment |= {f"{prefix}{name}": DEPLOY_KEY for name in names}
    for command in ("init", "start"):
        done = qs(command)
        assert done.returncode == 0, done.stderr
    given = Path(f"/proc/{qs.server()['pid']}/environ").read_text("utf-8")
    assert qs("stop").returncode == 0
    assert DEPLOY_KEY not in given


@pytest.mark.parametrize("secret", [PERSONAL, LEGACY])
@pytest.mark.parametrize("code", [401, 403, 404, 412])
def test_what_ngc_refuses_tells_no_secret(
    remote: CommandLine, ngc: Ngc, code: int, secret: str
) -> None:
    """A refusal names the kind and the place of the key, not the key."""
    ngc.fail(Fault("status", path="/v2/", value=code, times=-1))
    done = remote("init", NGC_API_KEY=secret)
    assert done.returncode in {3, 4}, done.stderr
    assert "Traceback" not in done.stderr
    check(remote, done.stdout, done.stderr)


@pytest.mark.parametrize("path", ["/v3/", "/v2/", "/blob/"])
def test_a_network_that_breaks_tells_no_secret(remote: CommandLine, ngc: Ngc, path: str) -> None:
    """Neither does a failure of the network, wherever it happens, a proxy with a password too."""
    ngc.fail(Fault("html", path=path, times=-1))
    proxy = f"http://user:{PROXY_PASSWORD}@127.0.0.1:1"
    outputs = []
    for variables in ({}, {"HTTPS_PROXY": proxy, "NO_PROXY": ""}):
        done = remote("init", **variables)
        assert done.returncode != 0
        assert "Traceback" not in done.stderr
        outputs += [done.stdout, done.stderr]
    check(remote, *outputs)
