"""One step of a cache-aware encoder against NeMo's own step, from any caches."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from support.encoders import encoder

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.nemo

TOLERANCE = 1e-4
# Among them a context of one chunk, and chunks of one step.
CONTEXTS = [(70, 6), (4, 3), (8, 0)]


@pytest.fixture(autouse=True)
def _no_gradients() -> Iterator[None]:
    import torch  # noqa: PLC0415 - comes with the extra nemo

    with torch.inference_mode():
        yield


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize(
    ("context", "different"),
    [
        *((context, {}) for context in CONTEXTS),
        ((70, 6), {"conv_norm_type": "batch_norm"}),
        ((70, 6), {"xscaling": True, "use_bias": False}),
        ((70, 6), {"feat_out": 24, "untie_biases": True}),
        ((70, 1), {"subsampling": "striding", "subsampling_factor": 4}),
    ],
)
def test_a_step_is_nemo_s(
    context: tuple[int, int], different: dict[str, Any], *, first: bool
) -> None:
    """Streams of one batch with full, half-full and empty caches, one of them at its end."""
    import torch  # noqa: PLC0415 - comes with the extra nemo

    from riva_speech.asr.streaming_config import StreamingConfig  # noqa: PLC0415 - beside the next
    from riva_speech.servicemaker.families import streaming  # noqa: PLC0415 - needs torch

    nemo = encoder(context, **different)
    assert streaming.is_supported(nemo)
    geometry = nemo.streaming_cfg
    described = StreamingConfig(
        att_context_size=context,
        first_frames=geometry.shift_size[0],
        chunk_frames=geometry.shift_size[1],
        history_frames=geometry.pre_encode_cache_size[1],
        chunk_steps=geometry.valid_out_len,
        caches=streaming.caches(nemo, context[0]),
    )
    if first:
        geometry.drop_extra_pre_encoded = 0
    step = streaming.Step(nemo, None, described, first=first).eval()
    frames, left = step.geometry.frames, context[0]
    signal, lengths = torch.randn(3, 80, frames), torch.tensor([frames, frames, max(frames - 3, 1)])
    lasts, times = torch.randn(3, 2, left, 32), torch.randn(3, 2, 32, 8)
    cached = torch.tensor([left, left // 2, 0])

    expected = nemo.forward_for_export(signal, lengths, lasts, times, cached)
    caches = (*_projected(nemo, lasts).unbind(1), *times.transpose(2, 3).unbind(1))
    found = step(signal, lengths, *caches, cached)

    assert found[1].tolist() == expected[1].tolist()
    for ours, theirs, length in zip(found[0], expected[0], found[1].tolist(), strict=True):
        torch.testing.assert_close(
            ours[:, :length], theirs[:, :length], atol=TOLERANCE, rtol=TOLERANCE
        )
    known = torch.cat([_projected(nemo, lasts), found[2]], dim=3)[:, :, :, -left:]
    whole = slice(0, 2)  # of what lies behind the end of a stream nothing is used
    torch.testing.assert_close(
        known[whole], _projected(nemo, expected[2])[whole], atol=TOLERANCE, rtol=TOLERANCE
    )
    torch.testing.assert_close(
        found[3][whole], expected[3].transpose(2, 3)[whole], atol=TOLERANCE, rtol=TOLERANCE
    )
    assert found[4].tolist() == expected[4].tolist()


def _projected(nemo: Any, lasts: Any) -> Any:
    """Return the keys and values of NeMo's cached steps."""
    import torch  # noqa: PLC0415 - comes with the extra nemo

    parts = []
    for number, layer in enumerate(nemo.layers):
        attention = layer.self_attn
        for project in (attention.linear_k, attention.linear_v):
            rows = project(lasts[:, number])
            parts.append(rows.view(*rows.shape[:2], attention.h, attention.d_k).transpose(1, 2))
    return torch.stack(parts, dim=1)


@pytest.mark.parametrize(
    "different", [{"self_attention_model": "abs_pos"}, {"conv_norm_type": "group_norm4"}]
)
def test_other_layers_are_left_to_nemo(different: dict[str, Any]) -> None:
    """An encoder with absolute positions, or normalised over all steps, has NeMo's own graph."""
    from riva_speech.servicemaker.families import streaming  # noqa: PLC0415 - needs torch

    assert not streaming.is_supported(encoder((70, 6), **different))
