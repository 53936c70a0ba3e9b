"""What all tests share: optional parts that CI makes compulsory."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

from support.triton_server import TRITON

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).parents[1]
# A machine that has them says where; nothing in the project depends on them.
_EMULATOR = Path("/proc/sys/fs/binfmt_misc/qemu-aarch64")
RECORDINGS = os.environ.get("RIVA_TEST_RECORDINGS", "")

# Where a test run is a background job, programs would inherit that Ctrl-C is ignored.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Neither how fast a machine is nor chance decides a test: the same examples are tried every time.
# Others are tried with --hypothesis-profile=search.
settings.register_profile(
    "search", deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True
)
settings.register_profile("riva-qs", parent=settings.get_profile("search"), derandomize=True)
settings.load_profile("riva-qs")


# What a whole framework needs: a busy machine takes several times as long as usual.
LONG = pytest.mark.timeout(1200)
LONG_ONES = ("nemo", "rtx", "triton")


def _no_engine() -> str:
    """Return why containers cannot be tested here; empty where they can."""
    command = ["docker", "images", "--format", "{{.Repository}}:{{.Tag}}"]
    try:
        told = subprocess.run(command, capture_output=True, text=True, timeout=100, check=True)
    except subprocess.CalledProcessError as error:
        return f"no Docker Engine answers: {error.stderr.strip()}"
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"no Docker Engine answers: {error}"
    tags = set(told.stdout.split())
    lost = {f"riva-qs-test/{name}:amd64" for name in ("base", "python")} - tags
    return f"`.ci/docker-bases amd64` makes {', '.join(sorted(lost))}" if lost else ""


REQUIREMENTS: dict[str, Callable[[], str]] = {
    "nemo": lambda: "" if find_spec("nemo") else "NeMo is not installed (extra 'nemo')",
    "grammars": lambda: "" if find_spec("pynini") else "pynini is not installed (extra 'text')",
    "recordings": lambda: (
        "" if RECORDINGS else "RIVA_TEST_RECORDINGS names no folder of recordings"
    ),
    "docker": _no_engine,
    "emulation": lambda: "" if _EMULATOR.exists() else "this kernel runs no aarch64 programs",
    "rtx": lambda: (
        "" if find_spec("tensorrt_rtx") else "TensorRT for RTX is not installed (extra 'rtx')"
    ),
    "triton": lambda: (
        "" if TRITON else "RIVA_TEST_TRITON names no environment with Triton's server"
    ),
}


@cache
def missing(name: str) -> str:
    """Return why what a marker names is not to be had here; empty where it is."""
    return REQUIREMENTS[name]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--write-golden", action="store_true", help="write the golden files anew")
    parser.addoption("--kills", type=int, default=40, help="how often init is killed, in all")
    for name in REQUIREMENTS:
        parser.addoption(f"--require-{name}", action="store_true", help=f"fail without {name}")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items:
        if item.get_closest_marker("nemo"):
            # NeMo and torch warn of themselves; this project's own warnings stay errors elsewhere.
            item.add_marker(pytest.mark.filterwarnings("ignore"))
        if any(map(item.get_closest_marker, LONG_ONES)) and not item.get_closest_marker("timeout"):
            item.add_marker(LONG)
        for name in REQUIREMENTS:
            reason = missing(name) if item.get_closest_marker(name) else ""
            if reason:
                if config.getoption(f"--require-{name}"):
                    raise pytest.UsageError(f"--require-{name}: {reason}")
                item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(scope="module", autouse=True)
def _is_told_here() -> Iterator[None]:
    """What a module leaves open is told at its end, and not in a test that happens to run then.

    This is the first fixture of each module, and so the last that ends.
    """
    yield
    gc.collect()


@pytest.fixture(scope="session")
def recordings() -> Path:
    """The folder of the development recordings; for tests marked so."""
    return Path(RECORDINGS)


@pytest.fixture
def kills(request: pytest.FixtureRequest) -> int:
    """How often a test kills init: one half in a folder, one on a volume."""
    return (int(request.config.getoption("--kills")) + 1) // 2
