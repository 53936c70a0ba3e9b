"""bundle export: what a location has, written into one file."""

from __future__ import annotations

import json
import tarfile
import tempfile
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from quickstart import __version__
from quickstart.bundle.hashing import CHUNK, Hashing
from quickstart.bundle.manifest import KIND, MANIFEST, SCHEMA
from quickstart.errors import ArtifactMissingError, IntegrityError, UsageError
from quickstart.lifecycle import Result
from quickstart.store.layout import place_of
from quickstart.store.values import File
from quickstart.transfer import size_text
from quickstart.transfer.partial import PARTIAL

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from quickstart.lifecycle import Suite
    from quickstart.store import Store

    Progress = Callable[[int], None]

KINDS = ("rmirs", "models", "images")
_BLOCK = 512


@dataclass(frozen=True)
class Member:
    """One file of a bundle, and where its bytes are now: in the location or on this machine."""

    file: File
    relative: str = ""
    path: Path | None = None


def export(suite: Suite, target: Path, what: Sequence[str], *, force: bool = False) -> Result:
    """Write a bundle, which takes its name when it is whole."""
    wanted = _kinds(suite, what)
    if target.exists() and not force:
        raise UsageError(f"{target} is there already", "choose another name, or pass --force")
    if not target.absolute().parent.is_dir():
        hint = "make it, or choose another place"
        raise UsageError(f"there is no folder {target.parent} for the bundle", hint)
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
        counted = Hashing(sink)
        connect().save_image(facts["image"], counted)  # type: ignore[arg-type]  # it is only written to
    row = {"member": "images/0.tar", "name": facts["image"], "id": facts["image_id"]}
    return row, Member(File("images/0.tar", counted.size, counted.sha256), path=path)


def _write(
    here: Store, path: Path, manifest: dict[str, Any], members: Sequence[Member], more: Progress
) -> None:
    """Write a bundle, each member held against its hash on the way."""
    text = json.dumps(manifest, indent=1, sort_keys=True).encode()
    with path.open("wb") as sink, tarfile.open(fileobj=sink, mode="w") as tar:
        with _member(tar, File(MANIFEST, len(text), "")) as out:
            out.write(text)
        for member in members:
            with _member(tar, member.file) as out:
                _pour(here, member, out)
            more(member.file.size)
            if (out.size, out.sha256) != (member.file.size, member.file.sha256):
                message = f"{member.relative or member.file.name} is not what it was"
                raise IntegrityError(message, "riva-qs verify says what is damaged")


def _pour(here: Store, member: Member, sink: Hashing) -> None:
    """Copy a member's bytes."""
    if member.path is None:
        here.place.read(member.relative, sink)  # type: ignore[arg-type]  # as above
        return
    with member.path.open("rb") as stream:
        for chunk in iter(lambda: stream.read(CHUNK), b""):
            sink.write(chunk)


@contextmanager
def _member(tar: tarfile.TarFile, file: File) -> Iterator[Hashing]:
    """Give a stream for the bytes of one member; all that is not content is the same always."""
    info = tarfile.TarInfo(file.name)
    info.size, info.mode = file.size, 0o644
    tar.addfile(info)
    sink = Hashing(tar.fileobj)  # type: ignore[arg-type]  # the file that `_write` has opened
    yield sink
    sink.sink.write(bytes(-sink.size % _BLOCK))
    tar.offset += sink.size + -sink.size % _BLOCK


def _total(members: Sequence[Member]) -> int:
    """Return how many bytes members have."""
    return sum(member.file.size for member in members)
