"""What config.pbtxt promises to Triton's own backends: batches, and what a run of one computes.

That it fits the graphs of every family is tested beside them: test_parity, test_transducers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from tritonclient.grpc import model_config_pb2 as triton

from riva_speech.asr.pipeline import ONLINE
from riva_speech.errors import DamagedArchiveError
from riva_speech.repository import CONFIG_FILE, Batching, ModelConfig, Tensor, read_config
from riva_speech.servicemaker import batches
from support.programs import succeed
from support.triton_configs import check, configured, graph_shape, models, session

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

_NUMPY = {triton.TYPE_FP32: np.float32, triton.TYPE_INT64: np.int64, triton.TYPE_INT32: np.int32}


def test_configurations_fit_the_graphs(tiny_repository: Path) -> None:
    """Streams and whole utterances of a CTC model, on Triton's ONNX Runtime backend."""
    check(tiny_repository)


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
