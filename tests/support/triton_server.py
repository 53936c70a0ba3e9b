"""The real Triton server out of the wheel nvidia-pytriton, which has the Python backend only."""

from __future__ import annotations

import os
import shutil
import subprocess
import sysconfig
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from support.ports import free_port
from support.programs import end

if TYPE_CHECKING:
    from collections.abc import Iterator

START_SECONDS = 240
# The environment that has the server and this project.
TRITON = os.environ.get("RIVA_TEST_TRITON", "")


@contextmanager
def triton(repository: Path, folder: Path, port: int = 0) -> Iterator[Any]:
    """Run Triton over a repository until every model is ready; give Triton's own gRPC client.

    A port of 0 is any that is free.
    """
    from tritonclient import grpc as client  # noqa: PLC0415 - few tests need it

    port = port or free_port()
    with (folder / "triton.log").open("w+") as log:
        process = subprocess.Popen(
            list(_command(repository, folder, port)),
            stdout=log,
            stderr=log,
            env=_environment(),
        )
        try:
            with client.InferenceServerClient(f"127.0.0.1:{port}") as server:
                _wait(server, process, Path(log.name))
                yield server
        finally:
            end(process)


def _command(repository: Path, folder: Path, port: int) -> Iterator[str]:
    (packages,) = Path(TRITON).glob("lib/python3.*/site-packages")
    server = packages / "pytriton" / "tritonserver"
    backend = folder / "backends" / "python"
    shutil.copytree(server / "backends" / "python", backend, dirs_exist_ok=True)
    # The wheel has one stub for each Python; Triton looks for it beside the backend.
    version = packages.parent.name.removeprefix("python")
    stub = server / "python_backend_stubs" / version / "triton_python_backend_stub"
    shutil.copy(stub, backend)
    yield str(server / "bin" / "tritonserver")
    yield f"--model-repository={repository}"
    yield f"--backend-directory={backend.parent}"
    yield "--strict-readiness=true"
    yield "--allow-http=false"
    yield "--allow-metrics=false"
    yield "--grpc-address=127.0.0.1"
    yield f"--grpc-port={port}"


def _environment() -> dict[str, str]:
    """Return an environment in which the server finds its libraries and its Python.

    Triton imports what the first python3 of the path would; PYTHONPATH means nothing to it.
    """
    (libraries,) = Path(TRITON).glob("lib/python3.*/site-packages/nvidia_pytriton.libs")
    return {
        **os.environ,
        "LD_LIBRARY_PATH": f"{libraries}:{sysconfig.get_config_var('LIBDIR')}",
        "PATH": f"{TRITON}/bin:{os.environ['PATH']}",
    }


def _wait(server: Any, process: subprocess.Popen[bytes], log: Path) -> None:
    from tritonclient.utils import InferenceServerException  # noqa: PLC0415 - as above

    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        assert process.poll() is None, log.read_text()
        try:
            if server.is_server_ready():
                return
        except InferenceServerException:
            pass
        time.sleep(0.1)
    raise TimeoutError(log.read_text())
