"""How a container is given GPUs, decided from what `docker info` says of the engine."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from quickstart.backends.container import NO_GPU, Gpu
from quickstart.errors import UnsupportedError

if TYPE_CHECKING:
    from collections.abc import Callable

    from quickstart.backends.engine import Facts
    from quickstart.config import Settings

_CDI_KIND = "nvidia.com/gpu="
_NO_GPU = "no GPU"
# Their ONNX Runtime has nothing for GPUs.
_CPU_VARIANTS = {"cpu", "servicemaker"}
_TOOLKIT = (
    "install the NVIDIA Container Toolkit, then `sudo nvidia-ctk runtime configure"
    " --runtime=docker && sudo systemctl restart docker`"
)


def choose(settings: Settings, ask: Callable[[], Facts], variant: str) -> tuple[Gpu, str]:
    """Return how the containers of the settings get GPUs, and the reason.

    Args:
        settings: `gpus_to_use` and `container_gpu_access` decide.
        ask: Asks the engine for what it says of itself, which takes it a while.
        variant: The variant of our image; empty for another's.

    Raises:
        UnsupportedError: A GPU is asked for, and the engine offers none.
    """
    asked = settings.gpus_to_use.strip('"')
    if asked == "none":
        return NO_GPU, f"{_NO_GPU}: gpus_to_use=none"
    if asked == "auto" and variant in _CPU_VARIANTS:
        return NO_GPU, f"{_NO_GPU}: the image is the variant {variant}"
    devices = "device=0" if asked == "auto" else asked
    if settings.container_gpu_access != "auto":
        way = settings.container_gpu_access
        return Gpu(way, devices), f"GPU by {way}: container_gpu_access={way}"
    way, why = _offered(ask(), tegra=settings.riva_target_gpu_family == "tegra")
    if way:
        return Gpu(way, devices), f"GPU by {way}: {why}"
    if asked == "auto":
        return NO_GPU, f"{_NO_GPU}: {why}; the service runs on the CPU"
    raise UnsupportedError(
        f"gpus_to_use={settings.gpus_to_use} asks for a GPU, but {why}",
        f"{_TOOLKIT}; or set gpus_to_use=none, or container_gpu_access to try a way nevertheless",
    )


def _offered(facts: Facts, *, tegra: bool) -> tuple[str, str]:
    """Return the best way that an engine offers, and the reason; no way where it offers none."""
    has_cdi = any(device.startswith(_CDI_KIND) for device in facts.cdi)
    if "nvidia" in facts.runtimes:
        if tegra:
            return "runtime", "on Jetson the runtime nvidia mounts the libraries; --gpus does not"
        return "gpus", "docker info names the runtime nvidia"
    if has_cdi:
        return "cdi", "docker info names CDI devices of nvidia.com and no runtime nvidia"
    # Engines before 28.2 name the folders of CDI, and not what is in them.
    for folder in () if facts.cdi else facts.cdi_folders:
        if any(Path(folder).glob("nvidia*")):
            return "cdi", f"docker info names the CDI folder {folder}, which has nvidia's devices"
    known = ", ".join(facts.runtimes) or "none"
    return "", f"docker info names neither the runtime nvidia (runtimes: {known}) nor a CDI device"
