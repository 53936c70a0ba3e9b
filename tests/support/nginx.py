"""nginx, which serves one file as fast as it can, or at a limited rate, and counts."""

from __future__ import annotations

import os
import shutil
import subprocess
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from support.ports import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator

_CONFIGURATION = """daemon off; worker_processes 1; pid {folder}/nginx.pid; user root;
events {{ worker_connections 256; }}
http {{
    log_format sent '$body_bytes_sent';
    access_log {folder}/sent.log sent;
    client_body_temp_path {folder}/t; proxy_temp_path {folder}/t; fastcgi_temp_path {folder}/t;
    uwsgi_temp_path {folder}/t; scgi_temp_path {folder}/t;
    sendfile on; sendfile_max_chunk 2m;
    server {{
        listen 127.0.0.1:{port} {ssl}; root {folder};
        location /slow/ {{ alias {folder}/; limit_rate {slow}m; }}
    }}
}}
"""
_TLS = "ssl; ssl_certificate {folder}/server.pem; ssl_certificate_key {folder}/server.key"


@dataclass
class Nginx:
    """A server of one file.

    Attributes:
        path: The file; for https, the folder has `server.pem` and `server.key` too.
        scheme: "http" or "https".
        slow: How many MiB a second each connection gets below `/slow/`.
    """

    path: Path
    scheme: str
    slow: int = 8
    port: int = field(default_factory=free_port)
    _pid: int = 0

    def url(self, *, slow: bool = False) -> str:
        """Return the address of the file."""
        folder = "slow/" if slow else ""
        return f"{self.scheme}://127.0.0.1:{self.port}/{folder}{self.path.name}"

    def sent(self) -> int:
        """Return how many bytes of the file were sent so far."""
        return sum(map(int, (self.path.parent / "sent.log").read_text().split()))

    def processors(self) -> float:
        """Return the processor time of its workers so far, in seconds."""
        children = Path(f"/proc/{self._pid}/task/{self._pid}/children").read_text().split()
        ticks = [
            sum(map(int, Path(f"/proc/{child}/stat").read_text().rsplit(")", 1)[1].split()[11:13]))
            for child in children
        ]
        return sum(ticks) / os.sysconf("SC_CLK_TCK")

    @contextmanager
    def running(self) -> Iterator[Nginx]:
        """Serve until the end of the block."""
        folder = self.path.parent
        configuration = folder / "nginx.conf"
        configuration.write_text(
            _CONFIGURATION.format(
                folder=folder,
                port=self.port,
                ssl=_TLS.format(folder=folder) if self.scheme == "https" else "",
                slow=self.slow,
            )
        )
        command = [shutil.which("nginx") or "nginx", "-c", str(configuration)]
        with subprocess.Popen([*command, "-e", str(folder / "error.log")]) as process:
            self._pid = process.pid
            try:
                yield self
            finally:
                process.terminate()
