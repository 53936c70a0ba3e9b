"""TensorRT engines: what they were built for, and whether that is what is here."""

from __future__ import annotations

import importlib
import shutil
import subprocess
from typing import TYPE_CHECKING, Any

from riva_speech.errors import UnsupportedError
from riva_speech.sessions.cuda import load_runtime

if TYPE_CHECKING:
    from collections.abc import Mapping

# The parameters of a model's configuration that say what an engine was built for.
STAMP_LIBRARY, STAMP_VERSION, STAMP_GPU = "engine_library", "engine_version", "compute_capability"
_NO_GPU = "name the GPU that it is for with --compute_capability, such as 8.9"


def load_library(name: str) -> Any:  # noqa: ANN401 - the library has no types
    """Import TensorRT or TensorRT for RTX.

    Raises:
        UnsupportedError: It is not installed, or does not load.
    """
    try:
        return importlib.import_module(name)
    except (ImportError, OSError) as error:
        package = name.replace("_", "-")
        raise UnsupportedError(
            f"{name} cannot be imported: {error}", hint=f"pip install {package}"
        ) from error


def capability_here() -> str:
    """Return the compute capability of this machine's first GPU, such as 9.0.

    Raises:
        UnsupportedError: There is none.
    """
    program = shutil.which("nvidia-smi")
    if program is None:
        raise UnsupportedError("an engine needs a GPU, and there is none here", hint=_NO_GPU)
    command = [program, "--query-gpu=compute_cap", "--format=csv,noheader"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode or not done.stdout.strip():
        raise UnsupportedError("an engine needs a GPU, and the driver shows none", hint=_NO_GPU)
    return done.stdout.split()[0]


def why_not_here(capability: str) -> str:
    """Return why no engine for a GPU can run here; empty where it can.

    Args:
        capability: The GPU's compute capability; empty for that of this machine's.
    """
    try:
        here = capability_here()
        load_runtime()
    except UnsupportedError as error:
        return error.message
    if capability in ("", here):
        return ""
    return f"it is for compute capability {capability}, and the GPU here has {here}"


def check_stamp(stamp: Mapping[str, str], model: str) -> None:
    """Check that an engine is for what is here.

    Raises:
        UnsupportedError: It was built for another GPU, or by another library or version.
    """
    library = load_library(stamp.get(STAMP_LIBRARY, ""))
    _same(stamp, STAMP_VERSION, str(library.__version__), model)
    _same(stamp, STAMP_GPU, capability_here(), model)


def _same(stamp: Mapping[str, str], key: str, found: str, model: str) -> None:
    if stamp.get(key) != found:
        raise UnsupportedError(
            f"the engine of {model} was built for {key} {stamp.get(key)}, and here it is {found}",
            hint="deploy it on this machine again with riva-deploy -f",
        )
