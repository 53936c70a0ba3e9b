"""What config.pbtxt promises to Triton's own backends is what the graphs take.

The rules are those that Triton states for its ONNX Runtime backend: every tensor of the graph by
name and type; where batches are declared, a first dimension of any size in front of ``dims`` (or of
``reshape``, where there is one); and every other dimension as in the graph, or -1 where the graph
takes any.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime
import pytest
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2 as triton

from riva_speech.asr.pipeline import ONLINE
from riva_speech.errors import DamagedArchiveError
from riva_speech.repository import CONFIG_FILE, Batching, ModelConfig, Tensor, read_config
from riva_speech.servicemaker import batches
from riva_speech.sessions.opening import GRAPH_FILE
from support.checkpoints import TRANSDUCERS, save_checkpoint
from support.programs import succeed

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from numpy.typing import NDArray

_TYPES = {
    "tensor(float)": triton.TYPE_FP32,
    "tensor(int64)": triton.TYPE_INT64,
    "tensor(int32)": triton.TYPE_INT32,
}
_NUMPY = {triton.TYPE_FP32: np.float32, triton.TYPE_INT64: np.int64, triton.TYPE_INT32: np.int32}


def configured(folder: Path) -> triton.ModelConfig:
    """Parse a model's configuration with Triton's schema, and nothing else."""
    text = (folder / CONFIG_FILE).read_text()
    return text_format.Parse(text, triton.ModelConfig())


def session(folder: Path) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    graph = str(folder / "1" / GRAPH_FILE)
    return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])


def graph_shape(tensor: triton.ModelInput, *, batched: bool) -> list[int]:
    """Return the shape that Triton gives a tensor; -1 is any size."""
    dims = tensor.reshape.shape if tensor.HasField("reshape") else tensor.dims
    return [-1, *dims] if batched else list(dims)


def faults(config: triton.ModelConfig, graph: onnxruntime.InferenceSession) -> Iterable[str]:
    """Return where Triton's backend would refuse to load a model."""
    for kind, ours, theirs in (
        ("input", config.input, graph.get_inputs()),
        ("output", config.output, graph.get_outputs()),
    ):
        tensors = {tensor.name: tensor for tensor in theirs}
        if set(tensors) != {tensor.name for tensor in ours}:
            yield f"{kind}s are {set(tensors)}"
            continue
        for tensor in ours:
            known = tensors[tensor.name]
            shape = graph_shape(tensor, batched=bool(config.max_batch_size))
            if _TYPES[known.type] != tensor.data_type:
                yield f"{tensor.name} is {known.type}"
            sizes = [size if isinstance(size, int) else -1 for size in known.shape]
            if len(sizes) != len(shape) or any(
                theirs not in (-1, mine) for mine, theirs in zip(shape, sizes, strict=False)
            ):
                yield f"{tensor.name} has {known.shape}, and {shape} is declared"


def models(repository: Path) -> list[Path]:
    return sorted(repository.glob("riva-onnx-*"))


def check(repository: Path) -> None:
    folders = models(repository)
    assert folders
    for folder in folders:
        config = configured(folder)
        assert config.backend == "onnxruntime"
        assert list(faults(config, session(folder))) == [], folder.name
        preferred = [*config.dynamic_batching.preferred_batch_size]
        assert all(1 <= size <= config.max_batch_size for size in preferred)


def test_configurations_fit_the_graphs(tiny_repository: Path) -> None:
    """Streams and whole utterances of a CTC model, on Triton's ONNX Runtime backend."""
    check(tiny_repository)


@pytest.mark.nemo
@pytest.mark.timeout(300)
def test_configurations_of_transducers_fit_the_graphs(tmp_path: Path) -> None:
    """The prediction network and joint leaves batches to its caller, and declares all it takes."""
    checkpoint, riva, rmir = (tmp_path / f"model.{kind}" for kind in ("nemo", "riva", "rmir"))
    save_checkpoint(TRANSDUCERS["rnnt-streaming-bpe"], checkpoint)
    succeed("nemo2riva", checkpoint, "--out", riva)
    both = ("--offline", "--streaming=True", "--decoder_type=nemo")
    succeed("riva-build", "speech_recognition", rmir, riva, *both)

    succeed("riva-deploy", rmir, tmp_path / "models")

    check(tmp_path / "models")
    joint = [path for path in models(tmp_path / "models") if path.name.endswith("-decoder-joint")]
    assert [configured(path).max_batch_size for path in joint] == [0, 0]


def random_inputs(config: triton.ModelConfig, seed: int) -> dict[str, NDArray[Any]]:
    """Return the inputs of one stream or utterance, with a batch of one."""
    rng = np.random.default_rng(seed)
    frames = 57
    values: dict[str, NDArray[Any]] = {}
    for tensor in config.input:
        shape = [1 if size == -1 else size for size in graph_shape(tensor, batched=True)]
        if tensor.name == "audio_signal":
            shape[2] = frames
        values[tensor.name] = rng.normal(size=shape).astype(_NUMPY[tensor.data_type])
    values["length"] = np.array([frames], np.int64)
    if "cache_last_channel_len" in values:
        values["cache_last_channel_len"] = np.array([seed], np.int64)
    return values


def test_every_entry_of_a_batch_is_computed_as_alone(tiny_repository: Path) -> None:
    """What Triton joins gives each client what it would have had by itself."""
    for folder in models(tiny_repository):
        config, graph = configured(folder), session(folder)
        assert config.HasField("dynamic_batching")
        asked = [random_inputs(config, seed) for seed in range(3)]
        names = [output.name for output in config.output]

        alone = [graph.run(names, inputs) for inputs in asked]
        joined = graph.run(
            names, {name: np.concatenate([one[name] for one in asked]) for name in asked[0]}
        )

        for position, name in enumerate(names):
            expected = np.concatenate([outputs[position] for outputs in alone])
            np.testing.assert_allclose(joined[position], expected, atol=1e-4, err_msg=name)


@pytest.mark.parametrize(
    ("options", "graphs", "pipelines"),
    [
        ([], {"streaming": (32, []), "offline": (8, [])}, {"streaming": 32, "offline": 8}),
        (
            ["--max_batch_size=4", "--nn.max_batch_size=16", "--nn.opt_batch_size=8"],
            {"streaming": (16, [8]), "offline": (16, [8])},
            {"streaming": 4, "offline": 4},
        ),
    ],
)
def test_batches_are_those_of_the_build(
    tmp_path: Path,
    tiny_riva: Path,
    options: list[str],
    graphs: dict[str, tuple[int, list[int]]],
    pipelines: dict[str, int],
) -> None:
    """Graphs have the acoustic model's sizes, pipelines their own; unsaid, each has what suits."""
    rmir, repository = tmp_path / "tiny.rmir", tmp_path / "models"
    both = ("--name=tiny", "--offline", "--streaming=True")
    succeed("riva-build", "speech_recognition", rmir, tiny_riva, *both, *options)

    succeed("riva-deploy", rmir, repository)

    for kind, (most, preferred) in graphs.items():
        for folder in repository.glob(f"riva-onnx-tiny-{kind}-*"):
            config = configured(folder)
            assert config.max_batch_size == most
            assert [*config.dynamic_batching.preferred_batch_size] == preferred
    for kind, most in pipelines.items():
        config = configured(repository / f"tiny-{kind}-asr-bls-ensemble")
        assert config.max_batch_size == most
        assert config.HasField("sequence_batching") == (kind == "streaming")
        assert config.input[0].allow_ragged_batch == (kind == "offline")


@pytest.mark.parametrize(
    "options",
    [
        *({"nn.max_batch_size": size} for size in (0, -1, "8", True, 1 << 40)),
        {"nn.max_batch_size": 2, "nn.opt_batch_size": 4},
    ],
)
def test_hostile_batch_sizes_are_a_damaged_archive(options: dict[str, object]) -> None:
    """What riva-build does not note is refused before anything is made of it."""
    with pytest.raises(DamagedArchiveError, match="batch size"):
        batches.of_graph(options, ONLINE)


def test_a_usual_batch_is_never_above_the_largest_that_nobody_named() -> None:
    """A graph tuned for more than it takes by default takes that many."""
    found = batches.of_graph({"nn.opt_batch_size": 64}, ONLINE)

    assert (found.least, found.usual, found.most) == (1, 64, 64)


@pytest.mark.parametrize(
    ("stateful", "batching"),
    [
        (False, None),
        (False, Batching()),
        (False, Batching((2, 4))),
        (False, Batching(ragged=True)),
        (True, Batching()),
        (True, Batching((2, 4))),
    ],
)
def test_a_configuration_is_read_as_it_was_written(
    tmp_path: Path, *, stateful: bool, batching: Batching | None
) -> None:
    """Nothing of what this project writes is lost on the way through the text form."""
    tensors = (Tensor("x", "FP32", (-1, 3)), Tensor("n", "INT64", (1,), per_entry=True))
    config = ModelConfig(
        tmp_path.name, "python", 4, tensors, tensors, {"a": "b"}, stateful, batching=batching
    )
    (tmp_path / "1").mkdir()
    (tmp_path / CONFIG_FILE).write_text(config.to_pbtxt())

    assert read_config(tmp_path) == config
