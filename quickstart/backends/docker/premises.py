"""What containers depend on besides the settings: the engine, the image, GPUs and the store."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from quickstart.backends import gpu, plan
from quickstart.errors import ArtifactMissingError, UnsupportedError

if TYPE_CHECKING:
    from quickstart.backends.container import Gpu
    from quickstart.backends.engine import Engine, Image
    from quickstart.config import Settings


@dataclass
class Premises:
    """Looks each thing up once, when it is first asked for.

    Attributes:
        settings: What to run.
        engine: The engine that runs it.
        store: The absolute path or the volume that holds the models.
    """

    settings: Settings
    engine: Engine
    store: str

    @cached_property
    def image_name(self) -> str:
        """The image that the settings name, or ours for this machine."""
        return self.settings.image_speech_api or plan.default_image(self.engine.architecture)

    @cached_property
    def image(self) -> Image:
        """The image, checked to be there and to run on this machine."""
        image = self.engine.image(self.image_name)
        if image is None:
            where = f"the Docker Engine at {self.engine.address}"
            message = f"{where} has no image {self.image_name}"
            raise ArtifactMissingError(message, self._source())
        if image.platform != self._platform:
            wrong = f"the image {image.name} is for {image.platform}"
            raise UnsupportedError(
                f"{wrong}, and this machine is {self._platform}",
                "set image_speech_api to one that fits, or make it: riva-qs image build",
            )
        return image

    @property
    def _platform(self) -> str:
        """The platform that images must be for."""
        return f"linux/{self.engine.architecture}"

    def _source(self) -> str:
        """Return where an image that is missing comes from, or which others are there."""
        if self.settings.image == "riva":
            return "riva-qs init pulls it"
        others = self.engine.images(f"{plan.LABEL}.variant")
        there = ", ".join(sorted(i.name for i in others if i.platform == self._platform))
        makes = "riva-qs image build makes it"
        return f"{makes}; or set image_speech_api to one that is there: {there}" if there else makes

    @cached_property
    def gpu(self) -> tuple[Gpu, str]:
        """How containers get GPUs, and the reason."""
        variant = self.image.labels.get(f"{plan.LABEL}.variant", "")
        return gpu.choose(self.settings, self.engine.facts, variant)

    @cached_property
    def host(self) -> plan.Host:
        """All of it, as specs are made of it."""
        owner = ""
        if self.store.startswith("/"):
            found = Path(self.store).stat()
            owner = f"{found.st_uid}:{found.st_gid}"
        devices = tuple(d for d in plan.JETSON_DEVICES if Path(d).exists())
        plugins = self._plugins() if self.settings.image == "riva" else ()
        return plan.Host(self.image.name, self.store, self.gpu[0], owner, devices, plugins)

    def _plugins(self) -> tuple[str, ...]:
        """Return the plugins for Triton that are in the store, as NVIDIA's server sees them."""
        if self.store.startswith("/"):
            found = Path(self.store, "plugins").glob("*.so")
            return tuple(sorted(f"/data/plugins/{p.name}" for p in found if p.stat().st_size))
        if not self.engine.volume_exists(self.store):
            return ()
        lines = self.engine.output(plan.finder(self.image.name, self.store))
        return tuple(sorted(line for line in lines if line.startswith("/data/plugins/")))
