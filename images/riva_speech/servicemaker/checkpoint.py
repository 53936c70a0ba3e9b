"""Opening a ``.nemo`` file that nobody vouches for.

A ``.nemo`` is a tar, in older files compressed, of ``model_config.yaml``, ``model_weights.ckpt``
(a torch pickle) and artefacts. Nothing in it is trusted: members are bounded and never leave the
folder they are put in, weights load with torch's restricted unpickler, and the configuration may
name no class outside an allow-list.
"""

from __future__ import annotations

import gzip
import re
import shutil
import tarfile
import zlib
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from riva_speech import safe_yaml
from riva_speech.bounded import LimitedReader, LimitError
from riva_speech.errors import ArtifactMissingError, DamagedArchiveError, UnsupportedError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

CONFIG = "model_config.yaml"
WEIGHTS = "model_weights.ckpt"

_MAX_MEMBERS = 1000
_MAX_ARTIFACT_BYTES = 256 << 20
_MAX_WEIGHTS_BYTES = 16 << 30
_MAX_CONFIG_BYTES = 8 << 20
# What a compressed checkpoint may unpack to: so many times its size, and a bit. Weights shrink by a
# tenth or less.
_MAX_RATIO, _SMALL = 20, 64 << 20
_GZIP = b"\x1f\x8b"
_ARTIFACT_PREFIX = "nemo:"
_MODULES = "nemo.collections.asr.modules."
# What a configuration may have built: modules of NeMo that compute, and nothing that reads
# files or starts anything.
_ALLOWED_MODULES = {
    "AudioToMelSpectrogramPreprocessor",
    "ConformerEncoder",
    "ConvASRDecoder",
    "ConvASREncoder",
    "RNNTDecoder",
    "RNNTJoint",
}
# ${name} points to another value; ${name:...} calls a resolver, which may read the environment.
# The name of a resolver may point to another value itself.
_RESOLVER = re.compile(r"\$\{.*:", re.DOTALL)


@dataclass(frozen=True)
class Checkpoint:
    """An unpacked checkpoint: the configuration, and the folder that its files lie in."""

    source: Path
    folder: Path
    config: dict[str, Any]

    @property
    def class_name(self) -> str:
        """The model's class without its package, as ``EncDecCTCModel``."""
        return str(self.config.get("target", "")).rsplit(".", 1)[-1]

    @property
    def weights(self) -> Path:
        """The pickled state dict."""
        return self.folder / WEIGHTS

    def section(self, name: str) -> dict[str, Any]:
        """Return a part of the configuration.

        Raises:
            UnsupportedError: It is missing.
        """
        value = self.config.get(name)
        if not isinstance(value, dict):
            raise UnsupportedError(f"the configuration of {self.source} has no section {name!r}")
        return value

    def artifact(self, reference: object) -> Path | None:
        """Return the file that a ``nemo:`` reference stands for, or None where it names none."""
        if not isinstance(reference, str) or not reference.startswith(_ARTIFACT_PREFIX):
            return None
        path = self.folder / _flat_name(reference.removeprefix(_ARTIFACT_PREFIX))
        return path if path.is_file() else None


def unpack(source: Path, folder: Path) -> Checkpoint:
    """Unpack a ``.nemo`` file into an empty folder.

    Raises:
        ArtifactMissingError: No such file, or it lacks configuration or weights.
        DamagedArchiveError: It is no tar, is cut short, or holds what no checkpoint may hold.
    """
    if not source.is_file():
        raise ArtifactMissingError(f"there is no file {source}", hint="check the path")
    try:
        with _opened(source) as (tar, limit):
            for member in _checked_members(source, tar, limit):
                file = tar.extractfile(member)
                assert file is not None  # it is a regular file
                _copy(file, folder / _flat_name(member.name))
    except LimitError as error:
        raise DamagedArchiveError(f"{source} is refused: {error}") from error
    except (tarfile.TarError, EOFError, OSError, ValueError, zlib.error) as error:
        if isinstance(error, OSError) and error.errno and not isinstance(error, tarfile.TarError):
            raise  # the disk, not the file
        raise DamagedArchiveError(f"{source} is not a readable .nemo file: {error}") from error
    for name in (CONFIG, WEIGHTS):
        if not (folder / name).is_file():
            raise ArtifactMissingError(f"{source} is not a NeMo checkpoint: it holds no {name}")
    return Checkpoint(source, folder, _read_config(source, folder / CONFIG))


@contextmanager
def _opened(source: Path) -> Iterator[tuple[tarfile.TarFile, int]]:
    """Open a tar, compressed or not; return how many bytes its size allows it to have too."""
    size = source.stat().st_size
    with source.open("rb") as plain:
        is_compressed = plain.read(len(_GZIP)) == _GZIP
        plain.seek(0)
        file = gzip.GzipFile(fileobj=plain) if is_compressed else plain
        limit = _MAX_RATIO * size + _SMALL if is_compressed else size
        with tarfile.open(fileobj=LimitedReader(file, limit), mode="r:") as tar:
            yield tar, limit


def _checked_members(source: Path, tar: tarfile.TarFile, most: int) -> Iterator[tarfile.TarInfo]:
    for count, member in enumerate(tar):
        if member.isdir():
            continue
        name = member.name.removeprefix("./")
        if (
            not member.isreg()
            or member.issparse()
            or Path(name).is_absolute()
            or ".." in Path(name).parts
        ):
            raise DamagedArchiveError(
                f"{source} is refused: its member {name!r} is not a plain file"
            )
        limit = _MAX_WEIGHTS_BYTES if name == WEIGHTS else _MAX_ARTIFACT_BYTES
        # A size below zero would lead back to members that were read already.
        if count >= _MAX_MEMBERS or not 0 <= member.size <= limit:
            raise DamagedArchiveError(
                f"{source} is refused: its member {name!r} is too large, or one too many"
            )
        if member.offset_data + member.size > most:
            raise DamagedArchiveError(
                f"{source} is refused: its member {name!r} claims more bytes than there can be"
            )
        if "/" not in name:  # sharded weights lie in folders, and no supported family has them
            yield member


def _flat_name(name: str) -> str:
    return Path(name).name


def _copy(file: IO[bytes], target: Path) -> None:
    try:
        with target.open("xb") as writer:
            shutil.copyfileobj(file, writer)
    except FileExistsError as error:
        raise DamagedArchiveError(
            f"the checkpoint is refused: its member {target.name!r} has no name of its own"
        ) from error


def _read_config(source: Path, path: Path) -> dict[str, Any]:
    if path.stat().st_size > _MAX_CONFIG_BYTES:
        raise DamagedArchiveError(f"{CONFIG} of {source} is too large to be a configuration")
    try:
        return safe_yaml.load_mapping(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DamagedArchiveError(f"{CONFIG} of {source} cannot be used: {error}") from error


def checked_module(section: Mapping[str, Any]) -> dict[str, Any]:
    """Return a module's configuration with its class spelt in full, once that is allowed.

    Raises:
        UnsupportedError: The class is not on the allow-list, or a value calls a resolver.
    """
    section = _modern(section)
    target = str(section.get("_target_", ""))
    name = target.rsplit(".", 1)[-1]
    if not target.startswith(_MODULES) or name not in _ALLOWED_MODULES:
        raise UnsupportedError(
            f"the checkpoint asks for the class {target or 'none'!r}, which is not supported",
            hint="supported are " + ", ".join(sorted(_ALLOWED_MODULES)),
        )
    values = {key: value for key, value in section.items() if key != "_target_"}
    refuse_code(values)
    return {"_target_": _MODULES + name, **values}


def _modern(section: Mapping[str, Any]) -> Mapping[str, Any]:
    """Turn the spelling of NeMo's first releases, ``cls`` and ``params``, into today's."""
    if "cls" not in section:
        return section
    params = section.get("params") or {}
    if not isinstance(params, dict) or set(section) - {"cls", "params"}:
        raise UnsupportedError(f"the module {section['cls']} is described in no known way")
    return {"_target_": section["cls"], **params}


def refuse_code(value: object) -> None:
    """Refuse nested classes and resolver calls, wherever they stand.

    Raises:
        UnsupportedError: There is one.
    """
    if isinstance(value, dict):
        if "_target_" in value:
            raise UnsupportedError("the checkpoint nests a class where none is supported")
        for entry in value.values():
            refuse_code(entry)
    elif isinstance(value, list):
        for entry in value:
            refuse_code(entry)
    elif isinstance(value, str) and _RESOLVER.search(value):
        raise UnsupportedError(f"the checkpoint's configuration calls a resolver: {value!r}")
