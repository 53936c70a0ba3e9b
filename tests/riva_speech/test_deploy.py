"""riva-deploy: what it verifies, what it reports, and what it refuses."""

from __future__ import annotations

import json
import os
import shutil
import stat
from typing import TYPE_CHECKING

import numpy as np
import pytest

from riva_speech.archive import open_archive, write_archive
from riva_speech.asr.loading import load_recognizers
from riva_speech.errors import DamagedArchiveError, SpeechError, UnsupportedError
from riva_speech.repository import Batching, list_models, read_config
from riva_speech.servicemaker import batches
from riva_speech.servicemaker.pipelines import layout
from riva_speech.servicemaker.pipelines.writing import frames
from riva_speech.servicemaker.riva_deploy import DeployOptions, deploy
from riva_speech.servicemaker.targets import Target
from riva_speech.servicemaker.verification import difference
from support.audio import babble
from support.programs import run, succeed
from support.triton_configs import configured, faults, session

if TYPE_CHECKING:
    from pathlib import Path

RTX = ("--runtime=tensorrt_rtx", "--compute_capability=8.9")


def contents(folder: Path) -> dict[str, bytes]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def test_every_model_is_held_against_its_source(tmp_path: Path, tiny_rmir: Path) -> None:
    """The report says how far each is from the RMIR's graph, and what it took."""
    report = tmp_path / "report.json"

    done = succeed("riva-deploy", tiny_rmir, tmp_path / "models", "--report", report)

    entries = [
        entry for model in json.loads(report.read_text())["models"] for entry in model["deployment"]
    ]
    acoustic = [entry for entry in entries if "largest_difference" in entry]
    assert [entry["directory"] for entry in acoustic] == [
        "riva-onnx-tiny-streaming-am-streaming",
        "riva-onnx-tiny-streaming-am-streaming-first",
        "riva-onnx-tiny-offline-am-streaming-offline",
    ]
    assert all(entry["largest_difference"] <= entry["tolerance"] == 1e-3 for entry in acoustic)
    assert all(entry["has_run"] for entry in acoustic)
    assert all(entry["seconds"] > 0 and entry["peak_memory_bytes"] > 2**20 for entry in entries)
    assert done.stderr.count("agrees with its source within") == 3


def test_the_log_has_the_official_lines(tmp_path: Path, tiny_rmir: Path) -> None:
    """Tools that watch for them find them, whole and in the order of the official tool."""
    repository = tmp_path / "models"
    log = succeed("riva-deploy", tiny_rmir, repository).stderr

    acoustic = "riva-onnx-tiny-offline-am-streaming-offline"
    graph = repository / acoustic / "1"
    pipeline = repository / "tiny-offline-asr-bls-ensemble" / "1"
    files = {name: str(graph / name) for name in ("model.onnx", "model_weights.bin")}
    obj_cls = "nemo.collections.asr.models.EncDecCTCModel"
    said = [line.split(" ", 2)[2] for line in log.splitlines()]
    expected = [
        f"Writing Riva model repository to '{repository}'...",
        f"The riva model repo target directory is {repository}",
        "Using onnx runtime",
        f"Extract_binaries for {acoustic} -> {graph}",
        f"extracting {{'onnx': ('{obj_cls}', 'model_graph.onnx')}} -> {graph}",
        "Printing copied artifacts:",
        str(files),
        f"Extract_binaries for self -> {pipeline}",
        str([acoustic, "tiny-offline-asr-bls-ensemble"]),
    ]
    assert [line for line in said if line in expected and said.count(line) == 1] == [
        line for line in expected if said.count(line) == 1
    ]
    assert set(expected) <= set(said)


def damage(folder: Path) -> None:
    """Change the weights of one deployed graph; other folders share the file no more."""
    path = folder / "1" / "model_weights.bin"
    changed = (np.fromfile(path, np.float32) * np.float32(1.1)).tobytes()
    path.unlink()
    path.write_bytes(changed)


@pytest.mark.parametrize("backend", ["native", "python"])
@pytest.mark.parametrize(
    "graph",
    ["streaming-am-streaming", "streaming-am-streaming-first", "offline-am-streaming-offline"],
)
def test_each_graph_is_held_against_its_source(
    tmp_path: Path, tiny_rmir: Path, tiny_repository: Path, graph: str, backend: str
) -> None:
    """One that computes something else fails the deploy, whichever it is and whatever serves it."""
    repository = tmp_path / "models"
    shutil.copytree(tiny_repository, repository)
    damage(repository / f"riva-onnx-tiny-{graph}")
    for path in repository.glob("*-asr-bls-ensemble"):
        shutil.rmtree(path)
    before = contents(repository)
    options = DeployOptions(
        (str(tiny_rmir),),
        repository,
        force=False,
        report=None,
        target=Target(triton_backend=backend),
    )

    with pytest.raises(SpeechError, match=f"{graph} differs from its source by"):
        deploy(options)

    assert contents(repository) == before


@pytest.mark.parametrize(
    ("content", "error", "said"),
    [
        (b"no graph", DamagedArchiveError, "ONNX Runtime cannot load"),
        (None, SpeechError, "values that are no numbers|does not run"),
    ],
)
def test_an_archive_with_a_broken_graph_is_not_deployed(
    tmp_path: Path,
    tiny_rmir: Path,
    content: bytes | None,
    error: type[SpeechError],
    said: str,
) -> None:
    """Hashes that are right prove nothing: the graph is run, and what is no graph is refused."""
    with open_archive(tiny_rmir, kind="rmir") as archive:
        for name in archive.names:
            archive.extract(name, tmp_path / name)
        sources = {name: tmp_path / name for name in archive.names}
        metadata = archive.metadata
    if content:
        sources["acoustic_model-model_graph.onnx"].write_bytes(content)
    else:
        weights = sources["acoustic_model-model_weights.bin"]
        weights.write_bytes(np.full(weights.stat().st_size // 4, np.nan, np.float32).tobytes())
    broken = tmp_path / "broken.rmir"
    write_archive(broken, kind="rmir", metadata=metadata, sources=sources)
    options = DeployOptions((str(broken),), tmp_path / "models", force=False, report=None)

    with pytest.raises(error, match=said):
        deploy(options)

    assert not list((tmp_path / "models").iterdir())


@pytest.mark.parametrize("options", [[], ["--triton_backend=python"], ["--optimize"]])
def test_deploying_twice_gives_the_same_bytes(
    tmp_path: Path, tiny_rmir: Path, options: list[str]
) -> None:
    """Nothing of the time, the machine or the folder is in a repository."""
    for name in ("one", "two"):
        succeed("riva-deploy", *options, tiny_rmir, tmp_path / name)

    assert contents(tmp_path / "one") == contents(tmp_path / "two")


def test_optimised_graphs_serve_on_their_own(tmp_path: Path, tiny_rmir: Path) -> None:
    """They have fewer operators, refer to nothing outside their folder, and hear the same."""
    plain, optimised = tmp_path / "plain", tmp_path / "optimised"
    succeed("riva-deploy", tiny_rmir, plain)
    succeed("riva-deploy", "--optimize", tiny_rmir, tmp_path / "first")
    (tmp_path / "first").rename(optimised)

    pairs = list(zip(load_recognizers(plain), load_recognizers(optimised), strict=True))

    assert [one.recognize(babble(4)).transcript for one, _ in pairs] == [
        other.recognize(babble(4)).transcript for _, other in pairs
    ]
    for graph in optimised.glob("*/1/model.onnx"):
        assert graph.stat().st_size < (plain / graph.relative_to(optimised)).stat().st_size


def test_a_model_that_differs_from_its_source_is_not_deployed(
    tmp_path: Path, tiny_riva: Path, tiny_rmir: Path
) -> None:
    """An older acoustic model of the same name fails the comparison, and nothing is published."""
    with open_archive(tiny_riva, kind="riva") as archive:
        for name in archive.names:
            archive.extract(name, tmp_path / name)
        sources = {name: tmp_path / name for name in archive.names}
        weights = np.fromfile(sources["model_weights.bin"], np.float32)
        (weights * np.float32(1.1)).tofile(sources["model_weights.bin"])
        other = tmp_path / "other.riva"
        write_archive(other, kind="riva", metadata=archive.metadata, sources=sources)
    succeed(
        "riva-build",
        "speech_recognition",
        tmp_path / "other.rmir",
        other,
        *("--name=tiny", "--offline", "--streaming=True"),
    )
    repository = tmp_path / "models"
    succeed("riva-deploy", tiny_rmir, repository)
    (repository / "tiny-offline-asr-bls-ensemble").rename(tmp_path / "aside")
    before = contents(repository)

    done = run("riva-deploy", tmp_path / "other.rmir", repository)

    assert done.returncode == 1
    assert "riva-onnx-tiny-offline-am-streaming-offline differs from its source by" in done.stderr
    assert "and 0.001 is allowed" in done.stderr
    assert contents(repository) == before
    succeed("riva-deploy", "-f", tmp_path / "other.rmir", repository)


def test_differences_are_relative_where_values_are_large() -> None:
    """Nearness counts for numbers; shapes, whole numbers and non-numbers must be equal."""
    small, large = np.array([0.5], np.float32), np.array([200.0], np.float32)

    assert difference(small + np.float32(0.25), small) == 0.25
    assert difference(large + np.float32(2), large) == pytest.approx(0.01)
    assert difference(small, np.array([[0.5]], np.float32)) == float("inf")
    assert difference(np.array([1]), np.array([2])) == float("inf")
    assert difference(np.array([np.nan]), np.array([1.0])) == float("inf")
    assert difference(np.array([np.nan, -np.inf]), np.array([np.nan, -np.inf])) == 0


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (["--runtime=onnxruntime-cuda"], 5, "has no CUDAExecutionProvider"),
        (["--runtime=tensorrt_rtx"], 5, "cannot be run once it is built"),
        (["--runtime=tensorrt", "--allow_unrun"], 5, "tensorrt cannot be imported"),
        (["--precision=fp16"], 2, "are for engines"),
        (["--optimize", "--runtime=onnxruntime-cuda"], 2, "is for --runtime=onnxruntime"),
        (["--compute_capability=8.9"], 2, "are for engines"),
        (["--runtime=tensorrt", "--triton_backend=python"], 2, "does not go with"),
    ],
)
def test_what_cannot_be_done_here_is_refused(
    tmp_path: Path, tiny_rmir: Path, options: list[str], code: int, said: str
) -> None:
    """The error names what is missing, and no model is written."""
    done = run("riva-deploy", *options, tiny_rmir, tmp_path / "models")

    assert done.returncode == code
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.rglob("*.pbtxt"))


@pytest.mark.rtx
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_engines_are_built_for_a_gpu_that_is_not_here(
    tmp_path: Path, tiny_rmir: Path, precision: str
) -> None:
    """Each graph becomes an engine with a stamp; what it was built of agrees with the source."""
    repository, report = tmp_path / "models", tmp_path / "report.json"

    succeed(
        *("riva-deploy", *RTX, "--allow_unrun", f"--precision={precision}"),
        *(tiny_rmir, repository, "--report", report),
    )

    acoustic = [name for name in list_models(repository) if "-am-" in name]
    assert [name.split("-tiny")[0] for name in acoustic] == ["riva-trt"] * 3
    for name in acoustic:
        config = read_config(repository / name)
        assert config.backend == config.parameters["engine_library"] == "tensorrt_rtx"
        assert config.parameters["compute_capability"] == "8.9"
        assert [path.name for path in (repository / name / "1").iterdir()] == ["model.plan"]
    entries = [e for m in json.loads(report.read_text())["models"] for e in m["deployment"]]
    compared = [entry for entry in entries if "largest_difference" in entry]
    assert [entry["has_run"] for entry in compared] == [False] * 3
    assert all(entry["largest_difference"] <= entry["tolerance"] for entry in compared)


@pytest.mark.rtx
def test_engines_are_built_as_the_build_says(tmp_path: Path, tiny_riva: Path) -> None:
    """Triton is told the largest batch; --nn.use_trt_fp32 wins over half precision, aloud."""
    rmir, repository = tmp_path / "tiny.rmir", tmp_path / "models"
    said = ("--nn.max_batch_size=8", "--nn.opt_batch_size=4", "--nn.use_trt_fp32")
    succeed("riva-build", "speech_recognition", rmir, tiny_riva, "--name=tiny", *said)

    done = succeed("riva-deploy", *RTX, "--allow_unrun", "--precision=fp16", rmir, repository)

    configs = [read_config(path) for path in repository.glob("riva-trt-*")]
    assert {config.max_batch_size for config in configs} == {8}
    assert {config.batching for config in configs} == {Batching((4,))}
    assert "tiny.rmir was built with --nn.use_trt_fp32" in done.stderr
    assert "Using tensorrt\n" in done.stderr
    plan = repository / "riva-trt-tiny-am-streaming" / "1" / "model.plan"
    assert f"Writing engine to model repository: {plan}" in done.stderr


@pytest.mark.rtx
def test_an_engine_s_shapes_are_those_of_the_build(tmp_path: Path, tiny_riva: Path) -> None:
    """Its profile reaches from one request to the largest batch, over the lengths of a chunk."""
    rmir, repository = tmp_path / "tiny.rmir", tmp_path / "models"
    said = ("--offline", "--chunk_size=3.2", "--padding_size=0.8", "--nn.max_batch_size=8")
    succeed("riva-build", "speech_recognition", rmir, tiny_riva, "--name=tiny", *said)
    with open_archive(rmir, kind="rmir") as archive:
        (pipeline,) = layout.pipelines_of(archive)

        batch, length = batches.of_engine(layout.options_of(archive)), frames(pipeline, first=False)

    assert (batch.least, batch.usual, batch.most) == (1, 8, 8)
    assert (length.least, length.most) == (8, 480)
    succeed("riva-deploy", *RTX, "--allow_unrun", rmir, repository)


@pytest.fixture(scope="module")
def engines(tiny_rmir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    repository = tmp_path_factory.mktemp("engines") / "models"
    succeed("riva-deploy", *RTX, "--allow_unrun", tiny_rmir, repository)
    return repository


@pytest.mark.rtx
def test_triton_is_told_what_engines_are_built_of(engines: Path, tiny_repository: Path) -> None:
    """Every tensor of an engine has the name, type and size of the graph that became it."""
    folders = sorted(engines.glob("riva-trt-*"))

    assert len(folders) == 3
    for folder in folders:
        graph = session(tiny_repository / folder.name.replace("riva-trt", "riva-onnx"))
        assert list(faults(configured(folder), graph)) == [], folder.name


@pytest.mark.rtx
def test_an_engine_of_another_version_is_refused(engines: Path) -> None:
    """The stamp is read before anything else, and the error names both versions."""
    configs = list(engines.glob("riva-trt-*/config.pbtxt"))
    originals = [path.read_text() for path in configs]
    for path, text in zip(configs, originals, strict=True):
        version = read_config(path.parent).parameters["engine_version"]
        path.write_text(text.replace(version, "0.0.1"))
    try:
        with pytest.raises(UnsupportedError, match=r"for engine_version 0\.0\.1, and here it is"):
            load_recognizers(engines)
    finally:
        for path, text in zip(configs, originals, strict=True):
            path.write_text(text)


@pytest.mark.rtx
def test_an_engine_for_another_gpu_is_refused(
    engines: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the driver's program says of the GPU must be what the engine was built for."""
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\necho 12.0\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")

    with pytest.raises(UnsupportedError, match=r"capability 8\.9, and here it is 12\.0"):
        load_recognizers(engines)


@pytest.mark.rtx
def test_a_gpu_that_the_library_does_not_know_is_refused(tmp_path: Path, tiny_rmir: Path) -> None:
    """The hint lists what it builds for."""
    options = ("--runtime=tensorrt_rtx", "--compute_capability=3.5", "--allow_unrun")

    done = run("riva-deploy", *options, tiny_rmir, tmp_path / "models")

    assert done.returncode == 2
    assert "no engine for compute capability 3.5" in done.stderr
    assert "8.9" in done.stderr
