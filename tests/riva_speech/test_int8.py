from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from riva_speech.archive import open_archive
from riva_speech.asr.loading import load_recognizers
from riva_speech.errors import DamagedArchiveError, SpeechError, UnsupportedError, UsageError
from riva_speech.servicemaker import agreement, riva_build, rounding
from riva_speech.servicemaker.agreement import compare, encoded
from riva_speech.servicemaker.quantisation import quantise
from riva_speech.servicemaker.targets import Accuracy, Target
from support.audio import babble, wav
from support.programs import run, succeed

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray


BOTH = ("--name=tiny", "--offline", "--streaming=True")
INT8 = (*BOTH, "--nn.weights=int8")


def build(rmir: Path, riva: Path, *options: object) -> Path:
    succeed("riva-build", "speech_recognition", rmir, riva, *options)
    return rmir


@pytest.fixture(scope="module")
def int8_rmir(tiny_riva: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("int8") / "int8.rmir", tiny_riva, *INT8)


@pytest.fixture(scope="module")
def int8_repository(int8_rmir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    repository = tmp_path_factory.mktemp("repository") / "models"
    succeed("riva-deploy", int8_rmir, repository)
    return repository


@pytest.mark.nemo
def test_rounded_models_hear_nearly_the_same(tiny_repository: Path, int8_repository: Path) -> None:
    """Streams and whole utterances have log-probabilities close to those of the model's own."""
    for plain, rounded in zip(
        load_recognizers(tiny_repository), load_recognizers(int8_repository), strict=True
    ):
        found = compare(*([encoded(one, babble(3.0))] for one in (plain, rounded)))

        assert plain.config.name == rounded.config.name
        assert 0 < found.mean < 0.3
        assert found.changed < 0.1


@pytest.mark.nemo
def test_rounded_weights_are_stored_once(int8_repository: Path, tiny_repository: Path) -> None:
    """All graphs refer to one file, well under half the size of the floating-point one."""
    files = list(int8_repository.glob("*/1/model_weights.bin"))
    plain = next(tiny_repository.glob("*/1/model_weights.bin"))

    assert len(files) == 3
    assert all(file.samefile(files[0]) for file in files)
    assert files[0].stat().st_size < 0.5 * plain.stat().st_size


@pytest.mark.nemo
def test_rounding_twice_gives_the_same_archive(
    tmp_path: Path, tiny_riva: Path, int8_rmir: Path
) -> None:
    """The same model and options make the same bytes."""
    again = build(tmp_path / "again.rmir", tiny_riva, *INT8)

    assert again.read_bytes() == int8_rmir.read_bytes()
    with open_archive(again, kind="rmir") as archive:
        assert archive.metadata["weights"] == "int8"


def graph_of(nodes: Sequence[object], weights: dict[str, NDArray[np.float32]], path: Path) -> None:
    """Save a graph from ``x`` [1, 4, 6] to ``y``."""
    import onnx  # noqa: PLC0415 - optional
    from onnx import helper, numpy_helper  # noqa: PLC0415 - optional

    shape = ("x", onnx.TensorProto.FLOAT, [1, 4, 6])
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info(*shape)],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, None)],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    opset = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=8), path)


@pytest.mark.nemo
def test_a_pipeline_that_does_not_run_is_told(tiny_repository: Path, tmp_path: Path) -> None:
    """A graph may load, and fail at its first sound."""
    from onnx import helper  # noqa: PLC0415 - optional

    name = "riva-onnx-tiny-offline-am-streaming-offline"
    plain = {name: tiny_repository / name / "1" / "model.onnx"}
    graph_of([helper.make_node("Identity", ["x"], ["y"])], {}, tmp_path / "g.onnx")

    with pytest.raises(SpeechError, match="tiny-offline does not run"):
        rounding.judge(
            tiny_repository / "tiny-offline-asr-bls-ensemble",
            plain,
            {name: tmp_path / "g.onnx"},
            Accuracy(),
        )


@pytest.mark.nemo
@pytest.mark.parametrize("content", [b"", b"junk"])
def test_what_is_no_graph_is_damaged(tmp_path: Path, content: bytes) -> None:
    """An archive may hold anything by a graph's name."""
    (tmp_path / "g.onnx").write_bytes(content)

    with pytest.raises(DamagedArchiveError, match=r"g\.onnx"):
        quantise([tmp_path / "g.onnx"], tmp_path / "weights.bin")


@pytest.mark.nemo
@pytest.mark.parametrize("bias", [False, True])
def test_convolutions_of_one_step_become_integer_products(tmp_path: Path, *, bias: bool) -> None:
    """A pointwise convolution is rounded, a depthwise one and the last one are not."""
    import onnx  # noqa: PLC0415 - optional
    import onnxruntime  # noqa: PLC0415 - optional
    from onnx import helper  # noqa: PLC0415 - optional

    rng = np.random.default_rng(0)
    weights = {
        name: rng.normal(0, 1, shape).astype(np.float32)
        for name, shape in (
            ("point", (8, 4, 1)),
            ("bias", (8,)),
            ("depth", (8, 1, 3)),
            ("last", (3, 8, 1)),
        )
    }
    first = ["x", "point", "bias"] if bias else ["x", "point"]
    nodes = [
        helper.make_node("Conv", first, ["a"], kernel_shape=[1], strides=[1]),
        helper.make_node("Conv", ["a", "depth"], ["b"], group=8, pads=[1, 1]),
        helper.make_node("Conv", ["b", "last"], ["c"]),
        helper.make_node("LogSoftmax", ["c"], ["y"], axis=1),
    ]
    plain, rounded = tmp_path / "plain.onnx", tmp_path / "rounded.onnx"
    graph_of(nodes, weights, plain)
    graph_of(nodes, weights, rounded)

    quantise([rounded], tmp_path / "weights.bin")

    kinds = [node.op_type for node in onnx.load(rounded).graph.node]
    assert (kinds.count("Conv"), kinds.count("MatMulInteger")) == (2, 1)
    x = rng.normal(0, 1, (1, 4, 6)).astype(np.float32)
    outputs = [
        onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"]).run(
            None, {"x": x}
        )[0]
        for path in (plain, rounded)
    ]
    np.testing.assert_allclose(outputs[1], outputs[0], atol=0.25)
    assert not np.array_equal(outputs[0], outputs[1])


@pytest.mark.nemo
def test_no_weight_moves_by_more_than_half_a_step(tmp_path: Path) -> None:
    """Each column has its own scale, and a column of zeros stays one."""
    import onnx  # noqa: PLC0415 - optional
    from onnx import helper, numpy_helper  # noqa: PLC0415 - optional

    weight = np.random.default_rng(1).normal(0, [1, 1e-3, 0, 50, 1, 1], (6, 6)).astype(np.float32)
    graph_of([helper.make_node("MatMul", ["x", "w"], ["y"])], {"w": weight}, tmp_path / "g.onnx")

    quantise([tmp_path / "g.onnx"], tmp_path / "weights.bin")

    tensors = {one.name: one for one in onnx.load(tmp_path / "g.onnx").graph.initializer}
    integers, scale = (numpy_helper.to_array(tensors[f"w/{part}"]) for part in ("int8", "scale"))
    assert integers.dtype == np.int8
    assert (np.abs(integers * scale - weight) <= scale / 2 * 1.001).all()
    assert not integers[:, 2].any()


@pytest.mark.nemo
def test_recordings_decide_whether_int8_will_do(
    tmp_path: Path, tiny_riva: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where too many best tokens change on given recordings, the build fails and says so."""
    (tmp_path / "a.wav").write_bytes(wav(babble(2.0)))
    chosen = riva_build.parse(
        [
            *("speech_recognition", str(tmp_path / "out.rmir"), str(tiny_riva), *INT8),
            f"--nn.check_audio={tmp_path}",
        ]
    )
    monkeypatch.setattr(agreement, "TOLERANCE", -1.0)

    with pytest.raises(SpeechError, match="int8 weights change") as error:
        riva_build.build(chosen)

    assert "fp32" in (error.value.hint or "")
    assert not (tmp_path / "out.rmir").exists()


@pytest.mark.nemo
def test_what_is_no_recording_is_refused(tmp_path: Path, tiny_riva: Path) -> None:
    """A path with nothing behind it, a folder without recordings and a text are three errors."""
    (tmp_path / "text.wav").write_text("no audio")
    (tmp_path / "empty").mkdir()
    cases = (("no", "no file", 3), ("empty", "no recording", 2), ("text.wav", "check_audio", 2))
    for name, said, code in cases:
        done = run(
            *("riva-build", "speech_recognition", tmp_path / "out.rmir", tiny_riva, *INT8),
            f"--nn.check_audio={tmp_path / name}",
        )

        assert done.returncode == code
        assert said in done.stderr
        assert "Traceback" not in done.stderr


def test_without_onnx_int8_is_refused_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A machine without the package is told which one, and how to go on without."""
    monkeypatch.setitem(sys.modules, "onnx", None)

    with pytest.raises(UnsupportedError, match="need the package onnx") as error:
        quantise([tmp_path / "graph.onnx"], tmp_path / "weights.bin")

    assert "pip install onnx" in (error.value.hint or "")


def test_differences_count_where_they_matter() -> None:
    """Tokens less likely than one in a thousand do not count, whatever becomes of them."""
    one = np.log(np.array([[0.7, 0.2999, 0.0001], [0.2, 0.79, 0.01]], "f4"))
    other = np.log(np.array([[0.6, 0.3, 0.1], [0.6, 0.39, 0.01]], "f4"))

    found = compare([one], [other])

    assert found.largest == pytest.approx(np.log(3), abs=1e-3)
    assert (found.changed, found.steps) == (0.5, 2)


def deployed(tmp_path: Path, rmir: Path, *options: object) -> tuple[dict[str, Any], str, Path]:
    """Deploy with int8 weights; return the report's models by name, the log and the repository."""
    report, repository = tmp_path / "report.json", tmp_path / "models"
    done = succeed(
        "riva-deploy", "--precision=int8", *options, rmir, repository, "--report", report
    )
    models = json.loads(report.read_text())["models"]
    return {model["name"]: model for model in models}, done.stderr, repository


@pytest.mark.nemo
def test_weights_are_rounded_when_a_pipeline_is_deployed(
    tmp_path: Path, tiny_rmir: Path, int8_repository: Path
) -> None:
    """The graphs are those of a build with int8; the report says how near they hear."""
    (tmp_path / "a.wav").write_bytes(wav(babble(2.0)))

    models, _, repository = deployed(
        tmp_path, tiny_rmir, f"--check_audio={tmp_path}", "--check_tolerance=0.5"
    )

    for model in models.values():
        assert model["weights"] == "int8"
        assert 0 <= model["int8"]["changed"] <= model["int8"]["tolerance"] == 0.5
        differences = [one.get("largest_difference", 0) for one in model["deployment"]]
        assert max(differences) <= 0.3
    for path in int8_repository.glob("*/1/model.onnx"):
        sizes = [(folder / path.relative_to(int8_repository)).stat().st_size
                 for folder in (int8_repository, repository)]  # fmt: skip
        assert sizes[0] == sizes[1]
    assert len(load_recognizers(repository)) == 2


@pytest.mark.nemo
@pytest.mark.parametrize(
    "options", [["--check_tolerance=-1"], ["--optimize", "--check_tolerance=-1"]]
)
def test_where_int8_will_not_do_the_model_keeps_its_weights(
    tmp_path: Path, tiny_rmir: Path, tiny_repository: Path, options: list[str]
) -> None:
    """It is deployed in fp32, aloud, and the report has both the reason and the precision."""
    models, log, repository = deployed(tmp_path, tiny_rmir, *options)

    assert "hears otherwise with int8 weights" in log
    assert "it is deployed in fp32" in log
    for model in models.values():
        assert model["weights"] == "fp32"
        assert model["int8"]["changed"] > model["int8"]["tolerance"]
        assert all(one.get("largest_difference", 0) <= 1e-3 for one in model["deployment"])
    if "--optimize" not in options:
        plain = tiny_repository / "riva-onnx-tiny-offline-am-streaming-offline"
        for path in (plain / "1").iterdir():
            assert (repository / plain.name / "1" / path.name).read_bytes() == path.read_bytes()


@pytest.mark.nemo
def test_int8_can_be_demanded(tmp_path: Path, tiny_rmir: Path) -> None:
    """Then the deploy fails where it will not do, and nothing is published."""
    options = ("--precision=int8", "--check_tolerance=-1", "--require_precision")

    done = run("riva-deploy", *options, tiny_rmir, tmp_path / "models")

    assert done.returncode == 1
    assert "error: tiny.rmir hears otherwise with int8 weights" in done.stderr
    assert not list((tmp_path / "models").iterdir())


@pytest.mark.nemo
def test_weights_are_not_rounded_twice(tmp_path: Path, int8_rmir: Path) -> None:
    """An RMIR of int8 weights is deployed as it is, and the log says so."""
    models, log, _ = deployed(tmp_path, int8_rmir)

    assert "int8.rmir has int8 weights already" in log
    assert "fp32" not in log
    assert {model["weights"] for model in models.values()} == {"int8"}


def test_the_options_of_int8_need_int8(tmp_path: Path, tiny_rmir: Path) -> None:
    """A check that would never be made is a mistake in the command line."""
    for option in ("--check_audio=a.wav", "--check_tolerance=0.1", "--require_precision"):
        done = run("riva-deploy", option, tiny_rmir, tmp_path / "models")

        assert done.returncode == 2
        assert "add --precision=int8" in done.stderr


@pytest.mark.parametrize("tolerance", [3.0, float("nan")])
def test_a_tolerance_is_a_share(tolerance: float) -> None:
    """Three per cent given as 3 would let any weights pass."""
    with pytest.raises(UsageError, match="is no share"):
        Target(precision="int8", accuracy=Accuracy(tolerance=tolerance))


@pytest.mark.parametrize("seconds", [0, 0.05])
def test_a_recording_of_nothing_is_refused(tmp_path: Path, seconds: float) -> None:
    """A model hears no step of it, so that there is nothing to compare."""
    path = tmp_path / "a.wav"
    path.write_bytes(wav(babble(1.0)[: int(seconds * 16_000)]))

    with pytest.raises(UsageError, match="shorter than"):
        agreement.load_sounds([path], 16_000)
