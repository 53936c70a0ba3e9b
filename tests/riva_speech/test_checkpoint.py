"""A .nemo file is hostile until proven otherwise; none of these tests needs NeMo."""

from __future__ import annotations

import io
import tarfile
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from riva_speech.errors import (
    ArtifactMissingError,
    DamagedArchiveError,
    SpeechError,
    UnsupportedError,
)
from riva_speech.servicemaker.checkpoint import CONFIG, WEIGHTS, checked_module, unpack
from support.programs import run

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

MODULES = "nemo.collections.asr.modules."


def make(
    path: Path, members: Mapping[str, bytes | tarfile.TarInfo] | None = None, *, mode: str = "w"
) -> Path:
    """Write a checkpoint; an entry that is a TarInfo stands for itself, without content."""
    config = yaml.safe_dump({"target": "nemo.collections.asr.models.ctc_models.EncDecCTCModel"})
    content = {CONFIG: config.encode(), WEIGHTS: b"pickle", **(members or {})}
    with tarfile.open(path, mode) as tar:  # type: ignore[call-overload]  # mode is any str
        for name, data in content.items():
            info = data if isinstance(data, tarfile.TarInfo) else tarfile.TarInfo(f"./{name}")
            body = b"" if isinstance(data, tarfile.TarInfo) else data
            info.size = info.size or len(body)
            tar.addfile(info, io.BytesIO(body) if body else None)
    return path


def special(name: str, kind: bytes, target: str = "", size: int = 0) -> tarfile.TarInfo:
    """Return a member that no checkpoint has."""
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size = kind, target, size
    return info


@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_plain_and_compressed_checkpoints_unpack(tmp_path: Path, mode: str) -> None:
    """Checkpoints of new and old NeMo are read, and their references resolve."""
    source = make(tmp_path / "model.nemo", {"ab12_tokenizer.model": b"sp"}, mode=mode)
    (tmp_path / "out").mkdir()

    checkpoint = unpack(source, tmp_path / "out")

    assert checkpoint.class_name == "EncDecCTCModel"
    artifact = checkpoint.artifact("nemo:ab12_tokenizer.model")
    assert artifact is not None
    assert artifact.read_bytes() == b"sp"
    assert checkpoint.artifact("/etc/passwd") is None
    assert checkpoint.artifact("nemo:../../../etc/passwd") is None


@pytest.mark.parametrize(
    "member",
    [
        special("../evil", tarfile.REGTYPE),
        special("/tmp/evil", tarfile.REGTYPE),
        special("link", tarfile.SYMTYPE, "/etc/passwd"),
        special("hard", tarfile.LNKTYPE, "/etc/passwd"),
        special("device", tarfile.CHRTYPE),
        special("fifo", tarfile.FIFOTYPE),
    ],
    ids=lambda member: member.name,
)
def test_members_that_leave_the_archive_are_refused(
    tmp_path: Path, member: tarfile.TarInfo
) -> None:
    """Paths, links and devices are refused by name, and nothing is written outside."""
    source = make(tmp_path / "model.nemo", {"x": member})
    (tmp_path / "out").mkdir()

    with pytest.raises(DamagedArchiveError, match="not a plain file"):
        unpack(source, tmp_path / "out")

    assert {path.name for path in tmp_path.iterdir()} == {"model.nemo", "out"}
    assert not any(path.is_symlink() for path in (tmp_path / "out").iterdir())


def test_a_member_of_impossible_size_is_refused_before_it_is_read(tmp_path: Path) -> None:
    """Sizes are bounded by what the header says, so a bomb is not unpacked."""
    source = make(tmp_path / "model.nemo", {"x": special("x", tarfile.REGTYPE, size=1 << 40)})
    (tmp_path / "out").mkdir()

    with pytest.raises(DamagedArchiveError):
        unpack(source, tmp_path / "out")


@pytest.mark.parametrize(
    ("content", "error"),
    [
        (b"", DamagedArchiveError),
        (b"no tar" * 500, DamagedArchiveError),
        (None, ArtifactMissingError),
    ],
)
def test_what_is_no_checkpoint_is_told_apart(
    tmp_path: Path, content: bytes | None, error: type[SpeechError]
) -> None:
    """An empty file, another file and no file each give a clear error."""
    source = tmp_path / "model.nemo"
    if content is not None:
        source.write_bytes(content)

    with pytest.raises(error, match=r"model\.nemo"):
        unpack(source, tmp_path)


def test_an_alias_bomb_is_refused(tmp_path: Path) -> None:
    """A configuration that expands to gigabytes is refused before it does."""
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 8)}]" for n in range(1, 12)]
    source = make(tmp_path / "model.nemo", {CONFIG: "\n".join(lines).encode()})
    (tmp_path / "out").mkdir()

    with pytest.raises(DamagedArchiveError, match="aliases"):
        unpack(source, tmp_path / "out")


def test_an_allowed_class_is_spelt_in_full() -> None:
    """Whichever way a checkpoint spells an allowed class, only the public one is built."""
    section = {"_target_": MODULES + "conformer_encoder.ConformerEncoder", "d_model": 8}

    assert checked_module(section) == {"_target_": MODULES + "ConformerEncoder", "d_model": 8}


@pytest.mark.parametrize(
    "section",
    [
        {"_target_": "os.system"},
        {"_target_": "subprocess.Popen", "args": ["id"]},
        {"_target_": "evil.ConformerEncoder"},
        {"_target_": MODULES + "RNNEncoder"},
        {},
        {"_target_": MODULES + "ConformerEncoder", "x": {"_target_": "os.system"}},
        {"_target_": MODULES + "ConformerEncoder", "x": [{"y": "${oc.env:HOME}"}]},
    ],
)
def test_no_other_class_and_no_resolver_gets_through(section: dict[str, Any]) -> None:
    """Classes outside the allow-list, nested classes and resolver calls are refused."""
    with pytest.raises(UnsupportedError):
        checked_module(section)


def test_an_unsupported_class_is_refused_by_name(tmp_path: Path) -> None:
    """nemo2riva names the class that it cannot convert, and writes nothing."""
    config = yaml.safe_dump({"target": "nemo.collections.tts.models.FastPitchModel"}).encode()
    source = make(tmp_path / "model.nemo", {CONFIG: config})

    done = run("nemo2riva", source)

    assert done.returncode == 5
    assert "error: models of the class FastPitchModel are not supported" in done.stderr
    assert "hint: supported are EncDecCTCModel" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["model.nemo"]


@pytest.mark.nemo
def test_a_pickle_that_runs_code_is_refused(tmp_path: Path) -> None:
    """Weights load with the restricted unpickler: a payload is refused, not run."""
    from support.checkpoints import ARCHITECTURES, save_checkpoint  # noqa: PLC0415 - optional

    honest, hostile = tmp_path / "honest.nemo", tmp_path / "hostile.nemo"
    save_checkpoint(ARCHITECTURES["fastconformer-streaming-char"], honest)
    with tarfile.open(honest) as tar:
        config = tar.extractfile(f"./{CONFIG}")
        assert config is not None
        make(hostile, {CONFIG: config.read(), WEIGHTS: payload(tmp_path / "ran")})

    done = run("nemo2riva", hostile)

    assert done.returncode == 9
    assert "weights are refused" in done.stderr
    assert not (tmp_path / "ran").exists()
    assert not (tmp_path / "hostile.riva").exists()


def payload(trace: Path) -> bytes:
    """Return a torch file whose pickle creates a file when it is loaded without care."""
    import torch  # noqa: PLC0415 - optional

    class Evil:
        def __reduce__(self) -> tuple[Any, ...]:
            return (open, (str(trace), "w"))

    buffer = io.BytesIO()
    torch.save({"x": Evil()}, buffer)
    return buffer.getvalue()
