"""What all tests share: optional parts that CI makes compulsory."""

from __future__ import annotations

import os
import signal
from importlib.util import find_spec
from pathlib import Path

import pytest
from hypothesis import settings

from support.triton_server import TRITON

ROOT = Path(__file__).parents[1]
# A machine that has them says where; nothing in the project depends on them.
RECORDINGS = os.environ.get("RIVA_TEST_RECORDINGS", "")

# Where a test run is a background job, programs would inherit that Ctrl-C is ignored.
signal.signal(signal.SIGINT, signal.default_int_handler)

# How fast a machine is decides no test.
settings.register_profile("riva-qs", deadline=None)
settings.load_profile("riva-qs")

REQUIREMENTS = {
    "nemo": (find_spec("nemo") is not None, "NeMo is not installed (extra 'nemo')"),
    "rtx": (
        find_spec("tensorrt_rtx") is not None,
        "TensorRT for RTX is not installed (extra 'rtx')",
    ),
    "triton": (bool(TRITON), "RIVA_TEST_TRITON names no environment with Triton's server"),
    "recordings": (bool(RECORDINGS), "RIVA_TEST_RECORDINGS names no folder of recordings"),
}


def pytest_addoption(parser: pytest.Parser) -> None:
    for name in REQUIREMENTS:
        parser.addoption(f"--require-{name}", action="store_true", help=f"fail without {name}")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items:
        if item.get_closest_marker("nemo"):
            # NeMo and torch warn of themselves; this project's own warnings stay errors elsewhere.
            item.add_marker(pytest.mark.filterwarnings("ignore"))
        for name, (present, reason) in REQUIREMENTS.items():
            if item.get_closest_marker(name) and not present:
                if config.getoption(f"--require-{name}"):
                    raise pytest.UsageError(f"--require-{name}: {reason}")
                item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(scope="session")
def recordings() -> Path:
    """The folder of the development recordings; for tests marked so."""
    return Path(RECORDINGS)
