"""The description of a pipeline, which travels in archives."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import pytest

from riva_speech.asr.pipeline import PipelineConfig
from riva_speech.errors import DamagedArchiveError

if TYPE_CHECKING:
    from riva_speech.asr.loading import Recognizer


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [
        (None, "chunk_size", math.inf),
        (None, "chunk_size", math.nan),
        (None, "chunk_size", 0),
        (None, "chunk_size", 10**400),
        (None, "left_padding_size", math.inf),
        ("acoustic", "max_steps", math.inf),
        ("acoustic", "ms_per_timestep", "some"),
    ],
)
def test_a_description_with_numbers_that_cannot_be_is_damaged(
    recognizers: dict[str, Recognizer], section: str | None, key: str, value: Any
) -> None:
    """Whatever stands in the place of a number, the archive is at fault."""
    values = recognizers["offline"].config.to_mapping()
    assert PipelineConfig.from_mapping(values) == recognizers["offline"].config
    (values[section] if section else values)[key] = value

    with pytest.raises(DamagedArchiveError):
        PipelineConfig.from_mapping(values)
