"""Our own images: their names, and the context that an engine builds them of."""

from __future__ import annotations

import io
import json
import tarfile
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from quickstart import __version__
from quickstart.backends import engine as engines
from quickstart.backends import plan
from quickstart.errors import ArtifactMissingError, RivaQsError, UsageError
from quickstart.lifecycle import Result
from quickstart.transfer import size_text

if TYPE_CHECKING:
    from collections.abc import Iterator

    from quickstart.backends.engine import Engine, Image
    from quickstart.console import Console

LABEL = "riva-qs.variant"


@dataclass(frozen=True)
class Variant:
    """One row of the table of base images, `bases.json`.

    `packages` are arguments of pip for what this variant has besides the engine, and `torch` those
    for the build of PyTorch that it takes: one for the CPU, without gigabytes of CUDA libraries.
    """

    name: str
    platform: str
    dockerfile: str
    builder: str
    runtime: str
    onnxruntime: str
    packages: str = ""
    torch: str = ""

    @property
    def image(self) -> str:
        """The name of the image that is built of it."""
        return plan.image_of(self.name)


def variants() -> dict[str, Variant]:
    """Return the table of base images."""
    table = json.loads((_folder() / "bases.json").read_text("utf-8"))
    return {name: Variant(name, **row) for name, row in table.items()}


@dataclass(frozen=True)
class Bases:
    """The base images that somebody gave instead of the table's; empty for those."""

    builder: str = ""
    runtime: str = ""


def build(
    console: Console, variant: str, platform: str, bases: Bases, tag: str, *, dry_run: bool
) -> Result:
    """Build one of our images."""
    engine = engines.connect()
    chosen = choose(variant, platform or ("" if variant else _native(engine)))
    wanted = options(chosen, bases, tag)
    data = {"verb": "image build", "image": wanted["tag"], "variant": chosen.name}
    base = wanted["buildargs"]["RUNTIME"]
    if dry_run:
        step = f"build {wanted['tag']} ({chosen.platform}) on {base}"
        return Result((f"would {step}",), {**data, "dry_run": True, "steps": [step]})
    with console.activity(f"building {wanted['tag']} on {base}") as report:
        for line in engine.build(context(), **wanted):
            report(line)
    made = engine.image(wanted["tag"])
    if made is None:
        raise RivaQsError(f"the build ended well, and there is no image {wanted['tag']}")
    lines = (f"built {made.name} ({made.platform}, {size_text(made.size)})",)
    facts = {**data, "id": made.id, "platform": made.platform, "size": made.size}
    # Only one image of an architecture is found without being named.
    named = made.name != plan.default_image(engine.architecture)
    option = f" --set image_speech_api={made.name}" if named else ""
    return Result(lines, facts, f"next: riva-qs --set backend=docker{option} init")


def listing() -> Result:
    """Return which images can be built, and which the engine has."""
    table = variants().values()
    made = {image.name: image for image in engines.connect().images(LABEL)}
    lines = [f"{v.image}  {v.platform}  {_state(made.get(v.image))}" for v in table]
    others = [image for name, image in made.items() if name not in {v.image for v in table}]
    lines += [f"{i.name}  {i.platform}  {_state(i)}" for i in others]
    rows = [asdict(image) for image in made.values()]
    known = [{**asdict(v), "image": v.image, "built": v.image in made} for v in table]
    return Result(tuple(lines), {"verb": "image list", "variants": known, "images": rows})


def _state(image: Image | None) -> str:
    """Say whether an image is there."""
    return f"built, {size_text(image.size)}" if image else "not built"


def _native(engine: Engine) -> str:
    """Return the platform of an engine."""
    return f"linux/{engine.architecture}"


def choose(variant: str, platform: str) -> Variant:
    """Return the variant of a name, or the first of a platform.

    Raises:
        UsageError: There is none, or it is of another platform.
    """
    table = variants()
    fitting = [
        v for v in table.values() if variant in ("", v.name) and platform in ("", v.platform)
    ]
    if not fitting:
        asked = " and ".join(text for text in (variant, platform) if text)
        known = ", ".join(f"{v.name} ({v.platform})" for v in table.values())
        raise UsageError(f"there is no image for {asked}", f"there is {known}")
    return fitting[0]


def options(variant: Variant, bases: Bases, tag: str) -> dict[str, Any]:
    """Return what an engine is told about a build, besides its context."""
    runtime = bases.runtime or variant.runtime
    about = {
        "org.opencontainers.image.title": "riva-qs speech",
        "org.opencontainers.image.description": "Servicemaker and Riva-compatible speech server",
        "org.opencontainers.image.version": __version__,
        "org.opencontainers.image.licenses": "Apache-2.0",
        "org.opencontainers.image.base.name": runtime,
        LABEL: variant.name,
    }
    arguments = {
        "BUILDER": bases.builder or variant.builder,
        "RUNTIME": runtime,
        "ONNXRUNTIME": variant.onnxruntime,
        "PACKAGES": variant.packages,
        "TORCH": variant.torch,
        "VERSION": __version__,
    }
    return {
        "dockerfile": variant.dockerfile,
        "tag": tag or variant.image,
        "platform": variant.platform,
        "buildargs": arguments,
        "labels": about,
    }


def context() -> bytes:
    """Return the build context: our Dockerfiles, and the engine half beside them.

    The same files give the same bytes, so that an engine's cache holds.
    """
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, path in sorted(_files()):
            archive.addfile(_entry(name, path), io.BytesIO(path.read_bytes()))
    return buffer.getvalue()


def _entry(name: str, path: Path) -> tarfile.TarInfo:
    """Return a file's entry, without the time and the owner that it happens to have."""
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = path.stat().st_size, 0o644
    return entry


def _files() -> Iterator[tuple[str, Path]]:
    """Yield what is in the context, by name."""
    for path in _folder().iterdir():
        if path.is_file():
            yield path.name, path
    package = _engine_package()
    for path in package.rglob("*"):
        if path.is_file() and "__pycache__" not in path.parts:
            yield f"riva_speech/{path.relative_to(package)}", path


def _folder() -> Path:
    """Return the folder of the Dockerfiles: in a checkout, or where a wheel put it."""
    here = Path(__file__).parent
    for folder in (here / "speech_image", here.parent / "images" / "speech"):
        if (folder / "bases.json").is_file():
            return folder
    raise ArtifactMissingError("this installation lacks the Dockerfiles", "install riva-qs again")


def _engine_package() -> Path:
    """Return the folder of the engine half, which is found but not imported."""
    found = find_spec("riva_speech")
    if found is None or not found.submodule_search_locations:
        raise ArtifactMissingError("this installation lacks riva_speech", "install riva-qs again")
    return Path(next(iter(found.submodule_search_locations)))
