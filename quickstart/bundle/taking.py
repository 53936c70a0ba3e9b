"""bundle import: all of a bundle is verified, and then taken over."""

from __future__ import annotations

import secrets
import shutil
from collections import Counter
from contextlib import ExitStack, contextmanager
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from quickstart import fit
from quickstart.bundle.hashing import CHUNK, Hashing
from quickstart.bundle.manifest import (
    Manifest,
    following,
    is_plain,
    opened,
    read_manifest,
    refused,
)
from quickstart.errors import ArtifactMissingError, IntegrityError, RivaQsError
from quickstart.lifecycle import Result, outdated
from quickstart.store import staging
from quickstart.store.layout import place_of
from quickstart.transfer import size_text
from quickstart.transfer.partial import PARTIAL

if TYPE_CHECKING:
    import tarfile
    from collections.abc import Iterator

    from quickstart.lifecycle import Suite
    from quickstart.store import Store
    from quickstart.store.values import File, Stamp


def import_bundle(suite: Suite, source: Path, *, dry_run: bool = False) -> Result:
    """Verify a bundle, then take over what it holds.

    Raises:
        IntegrityError: It is damaged, hostile, or not what its manifest says.
        UsageError: It is no bundle, or a newer riva-qs made it.
    """
    with opened(source) as tar:
        manifest = read_manifest(source, tar)
        if suite.store.is_volume:
            fit.check([fit.staged(manifest.size)])
        if dry_run:
            return _would(suite, source, manifest, _forecast(suite, manifest))
        with _verified(suite, source, tar, manifest) as (folder, images):
            lines = [*images, *_take_archives(suite.store, manifest, folder)]
            stamp = _take_models(suite.store, manifest, folder)
    lines += [f"models: generation {stamp.generation}"] if stamp else []
    facts = suite.facts("bundle import", file=str(source), steps=lines)
    note = outdated(suite, stamp) if stamp else ()
    generation = {"generation": stamp.generation if stamp else ""}
    next_step = "next: riva-qs start" if stamp else "next: riva-qs --offline init"
    return Result((*lines, *note), {**facts, **generation}, next_step)


@contextmanager
def _verified(
    suite: Suite, source: Path, tar: tarfile.TarFile, manifest: Manifest
) -> Iterator[tuple[Path, list[str]]]:
    """Give the folder of all that was verified, what was done with images, and the lock.

    Whoever looks into a volume does it in the image, which the bundle may bring: it comes first.
    """
    here = suite.store
    with ExitStack() as stack:
        if not here.is_volume:
            stack.enter_context(_target(suite, manifest))
        folder = stack.enter_context(_staging(here))
        _stage(suite, source, tar, manifest, folder)
        images = list(_take_images(suite, manifest, folder))
        if here.is_volume:
            stack.enter_context(_target(suite, manifest))
        yield folder, images


@contextmanager
def _target(suite: Suite, manifest: Manifest) -> Iterator[None]:
    """Hold the lock of a location that a bundle fits into."""
    _check_target(suite, manifest)
    with suite.store.locked("bundle import"):
        yield


def _check_target(suite: Suite, manifest: Manifest) -> None:
    """Raise an error when a bundle does not fit, or would replace what the user has."""
    here, ours = suite.store, set(suite.store.fetched())
    here.check_ours()
    there = {place_of(archive.name): archive for archive in here.archives()}
    for file in manifest.of("rmir", "prebuilt"):
        other = there.get(file.name)
        if other and other.sha256 != file.sha256 and file.name not in ours:
            message = f"{here.root / file.name} is there, with other content than the bundle's"
            raise RivaQsError(message, "move it away, and import again")
    fit.check([fit.copies(here, manifest.size)])


def _forecast(suite: Suite, manifest: Manifest) -> tuple[str, ...]:
    """Check a location as an import would; return what can only be said once it is under way."""
    try:
        _check_target(suite, manifest)
    except ArtifactMissingError:
        # A volume is looked into by an image, which may be what the bundle brings.
        if not (suite.store.is_volume and manifest.images):
            raise
        return (f"look whether all that fits into {suite.store}, once the image is there",)
    return ()


def _would(suite: Suite, source: Path, manifest: Manifest, later: tuple[str, ...]) -> Result:
    """Say what an import would take over."""
    images = {row["member"]: f"the image {row['name']}" for row in manifest.images}
    named = ((images.get(file.name, file.name), file.size) for file in manifest.members)
    steps = [*(f"take over {name} ({size_text(size)})" for name, size in named), *later]
    facts = suite.facts("bundle import", dry_run=True, file=str(source), steps=steps)
    return Result(tuple(f"would {step}" for step in steps), facts)


@contextmanager
def _staging(here: Store) -> Iterator[Path]:
    """Give a folder of this machine for what is being verified, on the location's own disk."""
    base = staging.staging() if here.is_volume else here.root
    for left in staging.abandoned() if here.is_volume else ():
        # What a download left is good for the next one; what an import left is good for nothing.
        if left.name.startswith(PARTIAL):
            staging.drop(left)
    with staging.claimed(base / f"{PARTIAL}-{secrets.token_hex(4)}") as folder:
        yield folder


def _stage(
    suite: Suite, source: Path, tar: tarfile.TarFile, manifest: Manifest, folder: Path
) -> None:
    """Unpack a bundle into a folder, every byte of it held against the manifest."""
    with suite.console.bytes_progress(f"verifying {source.name}", manifest.size) as more:
        for file in manifest.members:
            member = following(source, tar)
            if member is None:
                raise refused(source, f"{file.name} is missing")
            if (member.name, member.size, is_plain(member)) != (file.name, file.size, True):
                raise refused(source, f"it has {member.name!r} where {file.name} should be")
            _extract(source, tar, member, file, folder)
            more(file.size)
    extra = following(source, tar)
    if extra is not None:
        raise refused(source, f"it has {extra.name!r}, which its manifest does not name")


def _extract(
    source: Path, tar: tarfile.TarFile, member: tarfile.TarInfo, file: File, folder: Path
) -> None:
    """Write one member to a folder, and check its hash."""
    path = folder / file.name
    path.parent.mkdir(parents=True, exist_ok=True)
    stream = tar.extractfile(member)
    with path.open("xb") as plain:
        sink = Hashing(plain)
        for chunk in iter(lambda: stream.read(CHUNK) if stream else b"", b""):
            sink.write(chunk)
    if (sink.size, sink.sha256) != (file.size, file.sha256):
        raise refused(source, f"{file.name} is damaged: its SHA-256 is {sink.sha256[:16]}...")


def _take_archives(here: Store, manifest: Manifest, folder: Path) -> Iterator[str]:
    """Move archives to their places; yield what was done."""
    there = {place_of(archive.name): archive.sha256 for archive in here.archives()}
    for key, files in manifest.known.items():
        here.remember_files(key, files)
    for file in manifest.of("rmir", "prebuilt"):
        if there.get(file.name) == file.sha256:
            yield f"{file.name}: there already"
            continue
        here.remember_fetched(PurePosixPath(file.name).name, file.sha256)
        here.place.bring(folder / file.name, file.name, file.size, file.sha256)
        yield f"{file.name}: imported, {size_text(file.size)}, SHA-256 verified"


def _take_images(suite: Suite, manifest: Manifest, folder: Path) -> Iterator[str]:
    """Load images into the Docker Engine; yield what was done."""
    if manifest.images and suite.backend.name != "docker":
        yield "images: left out, since the backend is embedded"
        return
    for row in manifest.images:
        from quickstart.backends.engine import connect

        engine = connect()
        known = engine.image(row["name"])
        if known is None or known.id != row["id"]:
            with (folder / row["member"]).open("rb") as stream:
                engine.load_image(stream)
            known = engine.image(row["name"])
        if known is None or known.id != row["id"]:
            raise IntegrityError(f"the bundle's image {row['name']} is not {row['id']}")
        yield f"the image {row['name']}: there"


def _take_models(here: Store, manifest: Manifest, folder: Path) -> Stamp | None:
    """Make the bundle's generation the one that is served, in one step."""
    stamp = manifest.stamp
    if stamp is None:
        return None
    if stamp.generation in here.generations() and not here.damage(stamp.generation):
        if here.shown() != stamp.generation:
            here.switch_to(stamp.generation)
        return here.stamp(stamp.generation)
    if stamp.generation in here.generations():
        here.remove([f"generations/{stamp.generation}"])
    with here.draft() as draft:
        staged = {(file.size, file.sha256): folder / file.name for file in manifest.of("models")}
        left = Counter((file.size, file.sha256) for file in stamp.files)
        for file in stamp.files:
            content = file.size, file.sha256
            path = staged[content]
            left[content] -= 1
            if left[content]:
                # What the generation has twice, the bundle has once.
                path = shutil.copyfile(path, folder / "copy")
            here.place.bring(path, f"{draft}/models/{file.name}", *content)
        return here.publish_stamped(draft, stamp, manifest.lock)
