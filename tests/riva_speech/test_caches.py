"""What streams carry from step to step, as the model's description says."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from riva_speech.asr.acoustic import step
from riva_speech.asr.cache_aware import StreamingAcousticModel
from riva_speech.asr.pipeline import AcousticConfig
from riva_speech.asr.streaming_config import CacheConfig, StreamingConfig
from riva_speech.audio.features import FeatureConfig
from riva_speech.errors import DamagedArchiveError
from riva_speech.text.vocabulary import VocabularyType

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

CACHE_STEPS = 5


class Counting:
    """A graph that adds ``steps`` numbered steps to its cache, which may be ``split``, each run."""

    def __init__(self, steps: int, *, split: bool) -> None:
        self.steps = steps
        self.split = split
        self.seen: list[list[float]] = []

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        parts = [inputs["memory_0"], inputs["memory_1"]] if self.split else None
        memory = inputs["memory"] if parts is None else np.stack(parts, axis=1)
        assert memory.shape[:2] == (1, 2)
        self.seen.append(memory[0, 0, :, 0].tolist())
        begin = (len(self.seen) - 1) * self.steps + 1
        added = np.arange(begin, begin + self.steps, dtype=np.float32)
        return {
            "logprobs": np.zeros((1, 1, 2), np.float32),
            "encoded_lengths": np.ones(1, np.int64),
            "memory_next": np.broadcast_to(added[:, None], (1, 2, self.steps, 3)),
            "cache_last_channel_next_len": np.zeros(1, np.int64),
        }


@given(st.integers(1, 2 * CACHE_STEPS), st.integers(1, 8), st.booleans())
def test_a_cache_holds_the_newest_steps(added: int, runs: int, split: bool) -> None:  # noqa: FBT001 - by hypothesis
    """Steps that a graph adds push the oldest out, however many they are at once."""
    cache = CacheConfig("memory", (2, CACHE_STEPS, 3), append_axis=1, is_split=split)
    config = StreamingConfig((CACHE_STEPS, 0), 8, 8, 1, 1, (cache,))
    graph = Counting(added, split=split)
    model = StreamingAcousticModel(graph, graph, config, n_mels=4)
    state = model.start()

    for _ in range(runs):
        step(model, state, np.zeros((4, 8), np.float32))

    given_so_far = [0.0] * CACHE_STEPS + list(range(1, (runs - 1) * added + 1))
    assert graph.seen[-1] == given_so_far[-CACHE_STEPS:]


def described(streaming: Mapping[str, Any]) -> AcousticConfig:
    """Read a description with one look-ahead."""
    features = FeatureConfig(16000, 512, 160, 400, 0.97, 2.0, "add", 2**-24, "NA", 80)
    plain = AcousticConfig(features, VocabularyType.CHARACTER, 80, 100).to_mapping()
    return AcousticConfig.from_mapping({**plain, "streaming": [streaming]})


GEOMETRY: dict[str, Any] = {
    "att_context_size": [70, 6],
    "first_frames": 49,
    "chunk_frames": 56,
    "history_frames": 9,
    "chunk_steps": 7,
}


def test_archives_of_the_first_versions_have_nemo_s_caches() -> None:
    """A description with ``channel_cache`` and ``time_cache`` means caches that come back whole."""
    old = {**GEOMETRY, "channel_cache": [2, 70, 32], "time_cache": [2, 32, 8]}

    assert described(old).streaming[0].caches == (
        CacheConfig("cache_last_channel", (2, 70, 32)),
        CacheConfig("cache_last_time", (2, 32, 8)),
    )


@pytest.mark.parametrize(
    "cache",
    [
        {"name": "memory", "shape": [2, 70], "append_axis": 2},
        {"name": "memory", "shape": [2, 70], "append_axis": -1},
        {"name": "memory", "shape": [2, 0]},
        {"name": "memory", "shape": []},
        {"name": "memory", "shape": "many"},
        {"name": "memory"},
        "memory",
    ],
)
def test_a_malformed_cache_is_refused(cache: object) -> None:
    """A description whose caches make no sense is a damaged archive."""
    with pytest.raises(DamagedArchiveError, match="malformed"):
        described({**GEOMETRY, "caches": [cache]})


def test_a_description_survives_being_written() -> None:
    """What is written is what is read."""
    caches = [{"name": "memory", "shape": [2, 70, 32], "append_axis": 1}]
    config = described({**GEOMETRY, "caches": caches})

    assert AcousticConfig.from_mapping(config.to_mapping()) == config
