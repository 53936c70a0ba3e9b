"""TLS is all or nothing: half of it never serves plain."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from riva_speech.server.command_line import parse
from support import programs

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    "arguments",
    [
        ["--use_ssl"],
        ["--use_ssl", "--ssl_server_cert=a"],
        ["--ssl_server_cert=a", "--ssl_server_key=b"],
        ["--use_ssl", "--ssl_server_cert=a", "--ssl_server_key=b", "--ssl_use_mutual_auth"],
    ],
)
def test_half_of_tls_is_refused(arguments: list[str]) -> None:
    """A command line that names some of TLS and not all of it ends with exit code 2."""
    with pytest.raises(SystemExit) as caught:
        parse(arguments)
    assert caught.value.code == 2


def test_all_of_tls_is_understood() -> None:
    """The official options say which files, and whether clients are asked for theirs."""
    files = ["--ssl_server_cert=a", "--ssl_server_key=b", "--ssl_root_cert=c"]
    tls = parse(["--use_ssl", *files, "--ssl_use_mutual_auth"]).tls
    assert tls is not None
    assert [str(tls.certificate), str(tls.key), str(tls.root), tls.mutual] == ["a", "b", "c", True]
    assert parse([]).tls is None


def test_files_that_are_no_pair(tmp_path: Path) -> None:
    """A key of another certificate is refused at the start, not at the first client."""
    for name in ("one", "two"):
        command = (
            "openssl req -x509 -days 2 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes"
        )
        files = ["-out", f"{tmp_path}/{name}.crt", "-keyout", f"{tmp_path}/{name}.key"]
        subprocess.run(
            [*command.split(), "-subj", "/CN=x", *files], capture_output=True, check=True
        )
    pair = [f"--ssl_server_cert={tmp_path}/one.crt", f"--ssl_server_key={tmp_path}/two.key"]
    done = programs.run("start-riva", "--riva-uri=127.0.0.1:0", "--use_ssl", *pair)
    assert done.returncode == 2
    assert "no certificate with its key" in done.stderr


def test_a_key_with_a_passphrase_is_refused(tmp_path: Path) -> None:
    """Nobody is asked for it, not even on a terminal: a server must start by itself."""
    command = "openssl req -x509 -days 2 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1"
    pair = [tmp_path / "a.crt", tmp_path / "a.key"]
    files = ["-out", str(pair[0]), "-keyout", str(pair[1]), "-passout", "pass:sesame"]
    subprocess.run([*command.split(), "-subj", "/CN=x", *files], capture_output=True, check=True)
    options = [f"--ssl_server_cert={pair[0]}", f"--ssl_server_key={pair[1]}"]
    program = [sys.executable, "-m", programs.MODULES["start-riva"], "--use_ssl", *options]
    master, terminal = pty.openpty()

    # Of a session without a terminal, OpenSSL takes standard input for one.
    done = subprocess.run(
        [*program, "--riva-uri=127.0.0.1:0"],
        stdin=terminal,
        stderr=subprocess.PIPE,
        text=True,
        timeout=200,
        check=False,
        start_new_session=True,
    )
    os.close(master)
    os.close(terminal)

    assert done.returncode == 2
    assert "without a passphrase" in done.stderr
