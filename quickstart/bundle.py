"""Bundles: archives, deployed models and images in one tar, for hosts with no network.

    manifest.json      first: what is in it, each with size and SHA-256
    rmir/ prebuilt/    archives
    models/            the generation that is served
    images/            what `docker save` gives

The same content makes the same bytes, images apart. An import checks all of a bundle before it
changes anything; then archives come first and the models, in one step, last.
"""

from __future__ import annotations

import hashlib
import json
import re
import secrets
import shutil
import tarfile
import tempfile
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, BinaryIO

from quickstart import __version__, fit
from quickstart.errors import ArtifactMissingError, IntegrityError, RivaQsError, UsageError
from quickstart.lifecycle import Result, outdated
from quickstart.store import staging
from quickstart.store.unpack import is_inside
from quickstart.store.values import File, Stamp, is_archive, parse_files, parse_stamp, place_of
from quickstart.transfer import size_text
from quickstart.transfer.partial import PARTIAL

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from quickstart.lifecycle import Suite
    from quickstart.store import Store

    Progress = Callable[[int], None]

KINDS = ("rmirs", "models", "images")
SCHEMA, KIND = 1, "riva-qs bundle"
_MANIFEST, _MOST_MANIFEST = "manifest.json", 64 << 20
_GENERATION = re.compile(r"\d{8}T\d{6}Z-[0-9a-f]{8}")
_BLOCK, _CHUNK = 512, 1 << 20


@dataclass(frozen=True)
class Member:
    """One file of a bundle, and where its bytes are now: in the location or on this machine."""

    file: File
    relative: str = ""
    path: Path | None = None


# Export


def export(suite: Suite, target: Path, what: Sequence[str], *, force: bool = False) -> Result:
    """Write a bundle, which takes its name when it is whole."""
    wanted = _kinds(suite, what)
    if target.exists() and not force:
        raise UsageError(f"{target} is there already", "choose another name, or pass --force")
    with suite.store.locked("bundle export"), _spool(target) as spool:
        manifest, members = _content(suite, wanted, Path(spool))
        if not members:
            hint = "riva-qs init fetches and deploys"
            raise ArtifactMissingError(f"there is nothing to export in {suite.store}", hint)
        partial = target.with_name(target.name + PARTIAL)
        try:
            with suite.console.bytes_progress(f"writing {target.name}", _total(members)) as more:
                _write(suite.store, partial, manifest, members, more)
            partial.replace(target)
        finally:
            partial.unlink(missing_ok=True)
    size = target.stat().st_size
    line = f"{target}: {len(members)} files ({', '.join(wanted)}), {size_text(size)}"
    facts = {"file": str(target), "what": list(wanted), "size": size}
    rows = [asdict(member.file) for member in members]
    next_step = f"next, where there is no network: riva-qs bundle import {target.name}"
    return Result((line,), suite.facts("bundle export", **facts, members=rows), next_step)


def _spool(target: Path) -> tempfile.TemporaryDirectory[str]:
    """Return a folder for what must be packed first, on the disk that gets the bundle."""
    return tempfile.TemporaryDirectory(prefix=f"{PARTIAL}-", dir=target.absolute().parent)


def _kinds(suite: Suite, what: Sequence[str]) -> tuple[str, ...]:
    """Return what a bundle is to hold; images only where containers are used, unless asked for."""
    unknown = [kind for kind in what if kind not in KINDS]
    if unknown:
        raise UsageError(f"--what: {', '.join(unknown)} is none of {', '.join(KINDS)}")
    if "images" in what and suite.backend.name != "docker":
        raise UsageError("--what=images: the embedded backend has no image", "set backend=docker")
    everything = KINDS if suite.backend.name == "docker" else KINDS[:2]
    return tuple(kind for kind in KINDS if kind in (what or everything))


def _content(
    suite: Suite, wanted: Sequence[str], spool: Path
) -> tuple[dict[str, Any], list[Member]]:
    """Return the manifest and the members of a bundle."""
    here, members = suite.store, list[Member]()
    manifest: dict[str, Any] = {"schema_version": SCHEMA, "kind": KIND, "riva_qs": __version__}
    if "rmirs" in wanted:
        manifest["known"] = here.known()
        for archive in here.archives():
            place = place_of(archive.name)
            members.append(Member(File(place, archive.size, archive.sha256), place))
    stamp = here.current() if "models" in wanted else None
    if stamp is not None:
        manifest |= {"stamp": asdict(stamp), "lock": here.lock_file()}
        for file in {(f.size, f.sha256): f for f in reversed(stamp.files)}.values():
            relative = f"generations/{stamp.generation}/models/{file.name}"
            members.append(Member(File(f"models/{file.name}", file.size, file.sha256), relative))
    if "images" in wanted:
        image, member = _saved_image(suite, spool)
        manifest["images"] = [image]
        members.append(member)
    manifest["members"] = [asdict(member.file) for member in members]
    return manifest, members


def _saved_image(suite: Suite, spool: Path) -> tuple[dict[str, str], Member]:
    """Save the image of the backend to a file."""
    from quickstart.backends.engine import connect

    facts, path = suite.backend.engine(), spool / "0.tar"
    with suite.console.activity(f"saving the image {facts['image']}"), path.open("wb") as sink:
        counted = _Hashing(sink)
        connect().save_image(facts["image"], counted)  # type: ignore[arg-type]
    row = {"member": "images/0.tar", "name": facts["image"], "id": facts["image_id"]}
    return row, Member(File("images/0.tar", counted.size, counted.sha256), path=path)


def _write(
    here: Store, path: Path, manifest: dict[str, Any], members: Sequence[Member], more: Progress
) -> None:
    """Write a bundle, each member held against its hash on the way."""
    text = json.dumps(manifest, indent=1, sort_keys=True).encode()
    with path.open("wb") as sink, tarfile.open(fileobj=sink, mode="w") as tar:
        with _member(tar, File(_MANIFEST, len(text), "")) as out:
            out.write(text)
        for member in members:
            with _member(tar, member.file) as out:
                _pour(here, member, out)
            more(member.file.size)
            if (out.size, out.sha256) != (member.file.size, member.file.sha256):
                message = f"{member.relative or member.file.name} is not what it was"
                raise IntegrityError(message, "riva-qs verify says what is damaged")


def _pour(here: Store, member: Member, sink: _Hashing) -> None:
    """Copy a member's bytes."""
    if member.path is None:
        here.place.read(member.relative, sink)  # type: ignore[arg-type]
        return
    with member.path.open("rb") as stream:
        for chunk in iter(lambda: stream.read(_CHUNK), b""):
            sink.write(chunk)


@contextmanager
def _member(tar: tarfile.TarFile, file: File) -> Iterator[_Hashing]:
    """Give a stream for the bytes of one member; all that is not content is the same always."""
    info = tarfile.TarInfo(file.name)
    info.size, info.mode = file.size, 0o644
    tar.addfile(info)
    sink = _Hashing(tar.fileobj)  # type: ignore[arg-type]
    yield sink
    sink.sink.write(bytes(-sink.size % _BLOCK))
    tar.offset += sink.size + -sink.size % _BLOCK


class _Hashing:
    """Passes bytes on, counts and hashes them."""

    def __init__(self, sink: BinaryIO) -> None:
        self.sink, self.size, self._digest = sink, 0, hashlib.sha256()

    @property
    def sha256(self) -> str:
        """The hash of all that was written."""
        return self._digest.hexdigest()

    def writelines(self, chunks: Iterable[bytes]) -> None:
        """Write many bytes."""
        for chunk in chunks:
            self.write(chunk)

    def write(self, data: bytes) -> int:
        """Write bytes."""
        self.size += len(data)
        self._digest.update(data)
        return self.sink.write(data)


def _total(members: Sequence[Member]) -> int:
    """Return how many bytes members have."""
    return sum(member.file.size for member in members)


# Import


@dataclass(frozen=True)
class Manifest:
    """What a bundle says of itself, checked to make sense."""

    members: tuple[File, ...]
    known: dict[str, tuple[File, ...]]
    stamp: Stamp | None
    lock: dict[str, Any]
    images: tuple[dict[str, str], ...]

    def of(self, *folders: str) -> list[File]:
        """Return the members that lie in some folders."""
        return [file for file in self.members if file.name.partition("/")[0] in folders]


def import_bundle(suite: Suite, source: Path, *, dry_run: bool = False) -> Result:
    """Verify a bundle, then take over what it holds.

    Raises:
        IntegrityError: It is damaged, hostile, or not what its manifest says.
        UsageError: It is no bundle, or a newer riva-qs made it.
    """
    here = suite.store
    with _opened(source) as tar:
        manifest = _manifest(source, tar)
        _check_target(suite, manifest)
        if dry_run:
            return _would(suite, source, manifest)
        with here.locked("bundle import"), _staging(here) as folder:
            _stage(suite, source, tar, manifest, folder)
            lines = [*_take_archives(here, manifest, folder)]
            lines += _take_images(suite, manifest, folder)
            stamp = _take_models(here, manifest, folder)
    lines += [f"models: generation {stamp.generation}"] if stamp else []
    facts = suite.facts("bundle import", file=str(source), steps=lines)
    note = outdated(suite, stamp) if stamp else ()
    generation = {"generation": stamp.generation if stamp else ""}
    next_step = "next: riva-qs start" if stamp else "next: riva-qs --offline init"
    return Result((*lines, *note), {**facts, **generation}, next_step)


@contextmanager
def _opened(source: Path) -> Iterator[tarfile.TarFile]:
    """Give a bundle as a tar, which is never a compressed one."""
    try:
        with tarfile.open(source, "r:") as tar:
            yield tar
    except tarfile.TarError as error:
        raise _refused(source, f"it is no bundle, or it is cut: {error}") from error


def _refused(source: Path, why: str) -> IntegrityError:
    """Return the error for a bundle that is not taken over."""
    message = f"{source}: {why}; nothing was changed"
    return IntegrityError(message, "copy it once more, or export it again")


def _manifest(source: Path, tar: tarfile.TarFile) -> Manifest:
    """Return the manifest, which is the first member."""
    first = tar.next()
    if first is None or first.name != _MANIFEST or not first.isreg():
        raise UsageError(f"{source} is not a bundle of riva-qs", "riva-qs bundle export makes one")
    if first.size > _MOST_MANIFEST:
        raise _refused(source, "its manifest is too long")
    stream = tar.extractfile(first)
    try:
        data = json.loads(stream.read() if stream else b"")
        _check_kind(source, data)
        manifest = _parsed(data)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise _refused(source, f"its manifest makes no sense: {error!r}") from error
    for problem in (*_problems(manifest), *_problems_of_models(manifest)):
        raise _refused(source, problem)
    if sum(file.size for file in manifest.members) > source.stat().st_size:
        raise _refused(source, "it is shorter than what it says to hold")
    return manifest


def _check_kind(source: Path, data: dict[str, Any]) -> None:
    """Raise an error unless this version can read a manifest."""
    if data.get("kind") != KIND:
        raise UsageError(f"{source} is not a bundle of riva-qs", "riva-qs bundle export makes one")
    if data.get("schema_version") != SCHEMA:
        version = data.get("schema_version")
        message = f"{source} has schema_version {version!r}, and this riva-qs reads {SCHEMA}"
        raise UsageError(message, f"use riva-qs {data.get('riva_qs')} or newer")


def _parsed(data: dict[str, Any]) -> Manifest:
    """Return a manifest from its JSON."""
    known = {str(key): parse_files(rows) for key, rows in data.get("known", {}).items()}
    stamp = parse_stamp(data["stamp"]) if data.get("stamp") else None
    fields = ("member", "name", "id")
    images = tuple({name: str(row[name]) for name in fields} for row in data.get("images", ()))
    return Manifest(parse_files(data["members"]), known, stamp, dict(data.get("lock", {})), images)


def _problems(manifest: Manifest) -> Iterator[str]:
    """Yield what must not be in a manifest."""
    names = [file.name for file in manifest.members]
    if len(set(names)) < len(names):
        yield "it has a file twice"
    yield from (f"{f.name!r} has no place here" for f in manifest.members if not _has_place(f))
    numbers = (type(f.size) is int and f.size >= 0 for f in manifest.members)
    hashes = (re.fullmatch("[0-9a-f]{64}", str(f.sha256)) for f in manifest.members)
    if not (all(numbers) and all(hashes)):
        yield "its sizes or hashes are none"
    if {row["member"] for row in manifest.images} != {f.name for f in manifest.of("images")}:
        yield "its images are not those that it names"


def _problems_of_models(manifest: Manifest) -> Iterator[str]:
    """Yield what must not be in a manifest's stamp."""
    stamp = manifest.stamp
    if stamp is None and manifest.of("models"):
        yield "it has models and no stamp"
    if stamp is not None:
        if not _GENERATION.fullmatch(str(stamp.generation)):
            yield f"{stamp.generation!r} is no generation"
        if not all(_has_place(File(f"models/{f.name}", 0, "")) for f in stamp.files):
            yield "its models lead elsewhere"
        stamped = {(f.size, f.sha256) for f in stamp.files}
        if stamped != {(f.size, f.sha256) for f in manifest.of("models")}:
            yield "its models are not those of its stamp"


def _has_place(file: File) -> bool:
    """Say whether a member's name is one that a bundle may have."""
    path = PurePosixPath(file.name)
    if (
        not is_inside(file.name)
        or str(path) != file.name
        or any(part.startswith(".") for part in path.parts)
    ):
        return False
    if path.parts[0] in {"rmir", "prebuilt"}:
        return is_archive(path.name) and place_of(path.name) == file.name
    return path.parts[0] in {"models", "images"} and len(path.parts) > 1


def _check_target(suite: Suite, manifest: Manifest) -> None:
    """Raise an error when a bundle does not fit, or would replace what the user has."""
    here, ours = suite.store, set(suite.store.fetched())
    here.check_ours()
    there = {place_of(archive.name): archive for archive in here.archives()}
    for file in manifest.of("rmir", "prebuilt"):
        other = there.get(file.name)
        if other and other.sha256 != file.sha256 and file.name not in ours:
            message = f"{here.root / file.name} is there, with other content than the bundle's"
            raise RivaQsError(message, "move it away; nothing was changed")
    size = sum(file.size for file in manifest.members)
    fit.check([fit.Need("disk", str(here), size + fit.SPARE, here.free())])


def _would(suite: Suite, source: Path, manifest: Manifest) -> Result:
    """Say what an import would take over."""
    steps = [f"take over {file.name} ({size_text(file.size)})" for file in manifest.members]
    facts = suite.facts("bundle import", dry_run=True, file=str(source), steps=steps)
    return Result(tuple(f"would {step}" for step in steps), facts)


@contextmanager
def _staging(here: Store) -> Iterator[Path]:
    """Give a folder of this machine for what is being verified, on the location's own disk."""
    base = staging.staging() if here.is_volume else here.root
    with staging.claimed(base / f"{PARTIAL}-{secrets.token_hex(4)}") as folder:
        yield folder


def _stage(
    suite: Suite, source: Path, tar: tarfile.TarFile, manifest: Manifest, folder: Path
) -> None:
    """Unpack a bundle into a folder, every byte of it held against the manifest."""
    size = sum(file.size for file in manifest.members)
    with suite.console.bytes_progress(f"verifying {source.name}", size) as more:
        for file in manifest.members:
            member = tar.next()
            if member is None:
                raise _refused(source, f"{file.name} is missing")
            if (member.name, member.size, member.isreg()) != (file.name, file.size, True):
                raise _refused(source, f"it has {member.name!r} where {file.name} should be")
            _extract(source, tar, member, file, folder)
            more(file.size)
    extra = tar.next()
    if extra is not None:
        raise _refused(source, f"it has {extra.name!r}, which its manifest does not name")


def _extract(
    source: Path, tar: tarfile.TarFile, member: tarfile.TarInfo, file: File, folder: Path
) -> None:
    """Write one member to a folder, and check its hash."""
    path = folder / file.name
    path.parent.mkdir(parents=True, exist_ok=True)
    stream = tar.extractfile(member)
    with path.open("xb") as plain:
        sink = _Hashing(plain)
        for chunk in iter(lambda: stream.read(_CHUNK) if stream else b"", b""):
            sink.write(chunk)
    if (sink.size, sink.sha256) != (file.size, file.sha256):
        raise _refused(source, f"{file.name} is damaged: its SHA-256 is {sink.sha256[:16]}...")


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
        for file in stamp.files:
            # What the generation has twice, the bundle has once.
            copy = shutil.copyfile(staged[file.size, file.sha256], folder / "copy")
            here.place.bring(copy, f"{draft}/models/{file.name}", file.size, file.sha256)
        return here.publish_stamped(draft, stamp, manifest.lock)
