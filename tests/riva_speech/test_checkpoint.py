"""A .nemo file is hostile until proven otherwise; few of these tests need NeMo, and say so."""

from __future__ import annotations

import io
import os
import tarfile
import tracemalloc
import zipfile
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pytest
import yaml

from riva_speech.bounded import load_arrays
from riva_speech.errors import (
    ArtifactMissingError,
    DamagedArchiveError,
    SpeechError,
    UnsupportedError,
)
from riva_speech.servicemaker import weights
from riva_speech.servicemaker.checkpoint import CONFIG, WEIGHTS, checked_module, unpack
from riva_speech.servicemaker.sizes import fewest_weights
from support.programs import run

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
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


@pytest.mark.parametrize("name", [CONFIG, "."])
def test_no_member_takes_the_place_of_another(tmp_path: Path, name: str) -> None:
    """Which of two would count is nobody's guess, so neither does."""
    source = make(tmp_path / "model.nemo", {"x": special(name, tarfile.REGTYPE)})
    (tmp_path / "out").mkdir()

    with pytest.raises(DamagedArchiveError, match="no name of its own"):
        unpack(source, tmp_path / "out")


def test_a_member_of_negative_size_is_refused(tmp_path: Path) -> None:
    """It would lead back to what was read, again and again."""
    member = special("x", tarfile.REGTYPE)
    source = make(tmp_path / "model.nemo", {"x": member})
    member.size = -1024
    content = source.read_bytes()
    header = member.tobuf(tarfile.GNU_FORMAT)
    source.write_bytes(header + content)
    (tmp_path / "out").mkdir()

    with pytest.raises(DamagedArchiveError, match="too large"):
        unpack(source, tmp_path / "out")


def sparse(name: str) -> tarfile.TarInfo:
    """Return a file of a terabyte of which nothing is stored."""
    info = special(name, tarfile.REGTYPE)
    info.pax_headers = {
        "GNU.sparse.map": f"0,0,{1 << 40},0",
        "GNU.sparse.size": str(1 << 40),
        "GNU.sparse.numblocks": "2",
    }
    return info


def test_sparse_files_are_refused(tmp_path: Path) -> None:
    """What is almost nothing in the archive would fill a disk."""
    source = make(tmp_path / "model.nemo", {"holes": sparse("holes")})
    (tmp_path / "out").mkdir()

    with pytest.raises(DamagedArchiveError, match="not a plain file"):
        unpack(source, tmp_path / "out")


@pytest.mark.parametrize("header", [tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME])
@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_headers_are_no_larger_than_headers_are(tmp_path: Path, header: bytes, mode: str) -> None:
    """A header that claims gigabytes is refused before memory is taken for it."""
    source = make(tmp_path / "model.nemo", {"x": special("x", header, size=8 << 30)}, mode=mode)
    (tmp_path / "out").mkdir()
    tracemalloc.start()
    try:
        with pytest.raises(DamagedArchiveError, match=r"model\.nemo is"):
            unpack(source, tmp_path / "out")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert peak < 64 << 20


def test_a_gzip_bomb_does_not_fill_the_disk(tmp_path: Path) -> None:
    """A compressed checkpoint unpacks to some times its size, and no more is written."""
    source = make(tmp_path / "model.nemo", {"zeros": b"\0" * (120 << 20)}, mode="w:gz")
    assert source.stat().st_size < 1 << 20
    (tmp_path / "out").mkdir()

    with pytest.raises(DamagedArchiveError, match="claims more bytes than there can be"):
        unpack(source, tmp_path / "out")

    written = sum(path.stat().st_size for path in (tmp_path / "out").iterdir())
    assert written < 1 << 20


@pytest.mark.parametrize("cut", [1, 100, 600])
def test_a_compressed_checkpoint_that_is_cut_short_is_damaged(tmp_path: Path, cut: int) -> None:
    """It is told apart from one that does not exist, whatever is missing."""
    source = make(tmp_path / "model.nemo", {"x": os.urandom(4096)}, mode="w:gz")
    source.write_bytes(source.read_bytes()[:-cut])
    (tmp_path / "out").mkdir()

    try:
        unpack(source, tmp_path / "out")
    except DamagedArchiveError:
        return
    assert cut < 8 + 5, "only what lies behind the tar's end may be missing"


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


def torch_file(value: object, *, legacy: bool = False) -> bytes:
    """Return what torch writes; before 1.6 that was no zip."""
    import torch  # noqa: PLC0415 - optional

    buffer = io.BytesIO()
    torch.save(value, buffer, _use_new_zipfile_serialization=not legacy)
    return buffer.getvalue()


def deflated(content: bytes) -> bytes:
    """Return a zip with the same entries, deflated."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(buffer, "w") as new:
        for entry in old.infolist():
            new.writestr(entry.filename, old.read(entry), zipfile.ZIP_DEFLATED)
    return buffer.getvalue()


def hidden(content: bytes) -> bytes:
    """Return a zip with a comment by which Python does not find its end, and torch does."""
    buffer = io.BytesIO(content)
    with zipfile.ZipFile(buffer, "a") as file:
        file.comment = b" " * 30 + b"PK\x05\x06" + b" " * 10
    assert not zipfile.is_zipfile(buffer)
    return buffer.getvalue()


def pickled(content: bytes) -> bytes:
    """Return torch's zip with another pickle."""
    buffer = io.BytesIO()
    with (
        zipfile.ZipFile(io.BytesIO(torch_file({"x": 1}))) as old,
        zipfile.ZipFile(buffer, "w") as new,
    ):
        for entry in old.infolist():
            is_pickle = entry.filename.endswith("data.pkl")
            new.writestr(entry.filename, content if is_pickle else old.read(entry))
    return buffer.getvalue()


def hostile_weights(name: str) -> bytes:
    import torch  # noqa: PLC0415 - optional

    made: dict[str, Callable[[], bytes]] = {
        "deflated": lambda: deflated(torch_file({"x": torch.zeros(1 << 20)})),
        "hidden": lambda: hidden(deflated(torch_file({"x": torch.zeros(1 << 20)}))),
        "empty stack": lambda: pickled(b"\x80\x02."),
        "no mark": lambda: pickled(b"\x80\x02(u."),
        "no arguments": lambda: pickled(b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n)R."),
        "wide": lambda: torch_file({"x": torch.zeros(1).expand(1 << 40)}),
        "many": lambda: torch_file(dict.fromkeys(range(1 << 12), torch.zeros(1 << 16))),
        "sparse": lambda: torch_file({"x": torch.zeros((8, 8), layout=torch.sparse_coo)}),
        "meta": lambda: torch_file({"x": torch.zeros((1 << 40,), device="meta")}),
        "list": lambda: torch_file([1]),
        "number": lambda: torch_file({"x": 1}),
        "cut": lambda: torch_file({"x": torch.zeros(1 << 16)})[:-1000],
        "legacy": lambda: torch_file({"x": torch.zeros(64)}, legacy=True)[:-100],
        "nothing": lambda: b"",
    }
    return made[name]()


@pytest.mark.nemo
@pytest.mark.parametrize(
    "name",
    [
        "deflated",
        "hidden",
        "empty stack",
        "no mark",
        "no arguments",
        "wide",
        "many",
        "sparse",
        "meta",
        "list",
        "number",
        "cut",
        "legacy",
        "nothing",
    ],
)
def test_weights_are_no_larger_than_their_file(tmp_path: Path, name: str) -> None:
    """Tensors over bytes that are not there, and files that inflate, are refused by name."""
    path = tmp_path / WEIGHTS
    path.write_bytes(hostile_weights(name))

    with pytest.raises(DamagedArchiveError, match="weights are refused"):
        weights.load(path)


@pytest.mark.nemo
def test_honest_weights_load(tmp_path: Path) -> None:
    """Of today's torch and of the form that it had before 1.6, shared tensors among them."""
    import torch  # noqa: PLC0415 - optional

    tensor = torch.arange(6.0).reshape(2, 3)
    for legacy in (False, True):
        torch.save(
            {"a": tensor, "b": tensor.t()},
            tmp_path / WEIGHTS,
            _use_new_zipfile_serialization=not legacy,
        )
        loaded = weights.load(tmp_path / WEIGHTS)
        assert torch.equal(loaded["a"], tensor)
        assert torch.equal(loaded["b"], tensor.t())


@pytest.mark.nemo
@pytest.mark.parametrize(
    ("section", "values"),
    [
        ("encoder", {"n_layers": 2, "d_model": 4096}),
        ("encoder", {"n_layers": 500_000, "d_model": 16}),
        ("encoder", {"ff_expansion_factor": 500_000}),
        ("encoder", {"pos_emb_max_len": 10_000_000}),
        ("encoder", {"pos_emb_max_len": 200_000}),
        ("encoder", {"jasper": [{"filters": 1 << 40}]}),
        ("encoder", {"jasper": [{"filters": 200, "kernel": [11], "repeat": 5}]}),
        ("encoder", {"jasper": [{"filters": 16, "kernel": [900_000], "separable": True}] * 2}),
        ("encoder", {"jasper": [{"filters": 100, "groups": 100, "repeat": 900_000}]}),
        ("encoder", {"jasper": [{"filters": 99, "groups": 99, "se": True}] * 50}),
        ("encoder", {"feat_in": 800, "jasper": [{"filters": 50, "kernel": [1]}]}),
        ("encoder", {"subsampling_conv_channels": 900_000}),
        ("encoder", {"feat_in": 80_000, "subsampling_factor": 8}),
        ("encoder", {"subsampling": "stacking", "feat_in": 900, "subsampling_factor": 8}),
        ("encoder", {"conv_kernel_size": 900_000}),
        ("encoder", {"subsampling": None, "feat_in": 900_000}),
        ("encoder", {"subsampling_factor": 1, "feat_in": 900_000}),
        ("decoder", {"prednet": {"pred_hidden": 8192}}),
        ("preprocessor", {"features": 200_000, "n_fft": 400_000}),
        ("preprocessor", {"features": 200_000, "n_window_size": 400_000, "window_size": None}),
        ("preprocessor", {"window_size": 1e9}),
        ("preprocessor", {"window_size": float("inf")}),
    ],
)
def test_no_model_is_built_that_the_weights_cannot_fill(
    section: str, values: dict[str, Any]
) -> None:
    """NeMo would take the memory first, and look at the weights later."""
    import torch  # noqa: PLC0415 - optional

    honest: dict[str, dict[str, Any]] = {
        "preprocessor": {"features": 80, "n_fft": 512, "window_size": 0.025},
        "encoder": {"n_layers": 2, "d_model": 16},
        "decoder": {"num_classes": 28},
    }
    loaded = {"x": torch.zeros(10_000)}
    weights.refuse_giants(honest, loaded)
    weights.refuse_giants({**honest, "decoder": {"prednet": None}}, loaded)

    with pytest.raises(DamagedArchiveError, match="larger model than its 10000 weights"):
        weights.refuse_giants({**honest, section: {**honest[section], **values}}, loaded)


@pytest.mark.nemo
@pytest.mark.parametrize(
    "subsampling",
    [
        {},
        {"subsampling": None},
        {"subsampling_factor": 1},
        {"subsampling_factor": 8},
        {"subsampling": "dw_striding", "causal_downsampling": True},
        {"subsampling": "vggnet"},
        {"subsampling": "stacking"},
        {"subsampling": "striding_conv1d", "subsampling_factor": 2},
        {"subsampling": "striding_conv1d"},
        {"subsampling": "dw_striding_conv1d", "subsampling_factor": 2},
        {"subsampling": "dw_striding_conv1d"},
    ],
    ids=str,
)
def test_no_more_is_counted_than_nemo_builds(subsampling: dict[str, Any]) -> None:
    """An honest model has all the weights that are asked for, whatever its configuration omits."""
    from nemo.collections.asr.modules import ConformerEncoder  # noqa: PLC0415 - optional

    encoder = {"feat_in": 80, "d_model": 16, "n_heads": 4, "n_layers": 1}
    encoder |= {"subsampling_conv_channels": 500, **subsampling}
    built = sum(weight.numel() for weight in ConformerEncoder(**encoder).parameters())

    assert fewest_weights({"encoder": encoder}) <= built


@pytest.mark.nemo
@pytest.mark.parametrize("size", ["n_layers", "d_model", "ff_expansion_factor", "pos_emb_max_len"])
def test_sizes_that_point_to_others_are_followed(size: str) -> None:
    """What NeMo reads counts, wherever it is written."""
    import torch  # noqa: PLC0415 - optional
    from omegaconf import OmegaConf  # noqa: PLC0415 - optional

    sizes = {"n_layers": 2, "d_model": 16, "there": 500_000, size: "${.there}"}
    config = {"encoder": sizes, "decoder": {"prednet": {"pred_hidden": 8}}}
    with pytest.raises(DamagedArchiveError, match="larger model"):
        weights.refuse_giants(config, {"x": torch.zeros(10_000)}, resolved=OmegaConf.create(config))


@pytest.mark.nemo
def test_a_model_of_fewer_layers_than_none_makes_up_for_no_other() -> None:
    """What is below zero in one place leaves the bound of another as it is."""
    import torch  # noqa: PLC0415 - optional

    config = {
        "encoder": {"n_layers": -1_000_000, "d_model": 1000},
        "decoder": {"prednet": {"pred_hidden": 50_000}},
    }
    with pytest.raises(DamagedArchiveError, match="larger model"):
        weights.refuse_giants(config, {"x": torch.zeros(10_000)})


def array_file(path: Path, header: object, content: bytes) -> Path:
    """Write a ``.npz`` whose array ``x`` has any header and any bytes."""
    text = str(header).encode().ljust(117) + b"\n"
    entry = b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + content
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("x.npy", entry)
    return path


def header(shape: tuple[int, ...], kind: str = "<f4") -> dict[str, object]:
    return {"descr": kind, "fortran_order": False, "shape": shape}


@pytest.mark.parametrize(
    ("what", "content"),
    [
        (header((1 << 40,)), b"1234"),
        (header((1 << 20, 1 << 20, 1 << 20)), b"1234"),
        (header((-1,)), b"1234"),
        (header((4,)), b"1234"),
        (header((1,), "|O"), b"\x80\x04N."),
        (header((1,), "<U9999999"), b"1234"),
        ({"descr": "<f4"}, b"1234"),
        (header((1 << 24,)), b"\0" * (1 << 26)),
    ],
)
def test_arrays_are_no_larger_than_what_is_asked_for(
    tmp_path: Path, what: dict[str, object], content: bytes
) -> None:
    """Headers that claim too much, objects, missing bytes and bombs are all one kind of error."""
    path = array_file(tmp_path / "x.npz", what, content)

    with pytest.raises(ValueError, match=r".+"):
        load_arrays(path, ["x"], 1 << 20)


@pytest.mark.parametrize(
    "text", ["(" * 5000, "-" * 9000 + "1", "{[]: 1}", "'" * 3, str(header((0, 1 << 70)))]
)
def test_a_header_that_is_no_header_is_one_kind_of_error(tmp_path: Path, text: str) -> None:
    """Whatever numpy and Python's parser make of it."""
    path = array_file(tmp_path / "x.npz", text, b"")

    with pytest.raises(ValueError, match=r".+"):
        load_arrays(path, ["x"], 1 << 20)


@pytest.mark.parametrize("at", range(60, 110, 10))
def test_a_damaged_deflated_array_is_one_kind_of_error(tmp_path: Path, at: int) -> None:
    """The stream inside a zip can be broken where the zip itself is whole."""
    path = array_file(tmp_path / "x.npz", header((64,)), bytes(range(256)))
    content = bytearray(path.read_bytes())
    content[at] ^= 0xFF
    path.write_bytes(content)

    with pytest.raises(ValueError, match=r".+"):
        load_arrays(path, ["x"], 1 << 20)


def test_only_what_numpy_packs_is_unpacked(tmp_path: Path) -> None:
    """LZMA takes the memory that a header of five bytes asks for."""
    with zipfile.ZipFile(tmp_path / "x.npz", "w", zipfile.ZIP_LZMA) as file:
        file.writestr("x.npy", b"content")

    with pytest.raises(ValueError, match="packed in an unknown way"):
        load_arrays(tmp_path / "x.npz", ["x"], 1 << 20)


@pytest.mark.parametrize("order", ["C", "F"])
def test_honest_arrays_load(tmp_path: Path, order: Literal["C", "F"]) -> None:
    """They are those that numpy reads."""
    array = np.asarray(np.arange(6.0).reshape(2, 3), order=order)
    np.savez_compressed(tmp_path / "x.npz", x=array)

    np.testing.assert_array_equal(load_arrays(tmp_path / "x.npz", ["x"], 48)["x"], array)


def payload(trace: Path) -> bytes:
    """Return a torch file whose pickle creates a file when it is loaded without care."""
    import torch  # noqa: PLC0415 - optional

    class Evil:
        def __reduce__(self) -> tuple[Any, ...]:
            return (open, (str(trace), "w"))

    buffer = io.BytesIO()
    torch.save({"x": Evil()}, buffer)
    return buffer.getvalue()
