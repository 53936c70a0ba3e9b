"""An encoder as it is exported for whole utterances, against NeMo's own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from support.encoders import encoder

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.nemo

TOLERANCE = 1e-4
# Even and odd, beside one that fills the batch; of one step, and of nearly none.
LENGTHS = [203, 202, 97, 8, 1]
# An encoder that is not cache-aware: everything is heard, convolutions look ahead.
WHOLE = {
    "causal_downsampling": False,
    "att_context_style": "regular",
    "conv_norm_type": "batch_norm",
    "conv_context_size": None,
}


@pytest.fixture(autouse=True)
def _no_gradients() -> Iterator[None]:
    import torch  # noqa: PLC0415 - comes with the extra nemo

    with torch.inference_mode():
        yield


@pytest.mark.parametrize(
    ("context", "different"),
    [
        ((70, 6), {}),
        ((8, 0), {"conv_norm_type": "batch_norm"}),
        ((8, 0), {"conv_norm_type": "group_norm4"}),
        ((70, 6), {"xscaling": True, "use_bias": False, "untie_biases": True}),
        ((-1, -1), WHOLE),
        ((-1, -1), {**WHOLE, "conv_norm_type": "group_norm4", "feat_out": 24}),
        ((4, 3), {**WHOLE, "subsampling": "striding", "subsampling_factor": 4}),
    ],
)
def test_a_batch_is_encoded_as_nemo_does(
    context: tuple[int, int], different: dict[str, Any]
) -> None:
    """Utterances of unlike lengths in one batch, the shortest of a single frame."""
    import torch  # noqa: PLC0415 - comes with the extra nemo

    from riva_speech.servicemaker.families import whole  # noqa: PLC0415 - needs torch

    nemo = encoder(context, **different)
    assert whole.is_supported(nemo)
    for norm in (one for one in nemo.modules() if isinstance(one, torch.nn.BatchNorm1d)):
        torch.nn.init.uniform_(norm.running_mean, -1, 1)
        torch.nn.init.uniform_(norm.running_var, 0.5, 2)
    lengths = torch.tensor(LENGTHS)
    signal = torch.randn(len(LENGTHS), 80, max(LENGTHS))
    for utterance, length in zip(signal, LENGTHS, strict=True):
        utterance[:, length:] = 0

    expected, steps = nemo.forward_for_export(signal, lengths)
    layers = nemo.layers
    with whole.lean(nemo):
        found, found_steps = nemo.forward_for_export(signal, lengths)

    assert nemo.layers is layers, "the encoder is as it was"
    assert found_steps.tolist() == steps.tolist()
    for ours, theirs, length in zip(found, expected, steps.tolist(), strict=True):
        torch.testing.assert_close(
            ours[:, :length], theirs[:, :length], atol=TOLERANCE, rtol=TOLERANCE
        )


def test_other_attention_is_left_to_nemo() -> None:
    """An encoder with absolute positions keeps its layers."""
    from riva_speech.servicemaker.families import whole  # noqa: PLC0415 - needs torch

    nemo = encoder((-1, -1), **WHOLE, self_attention_model="abs_pos")
    layers = nemo.layers
    with whole.lean(nemo):
        assert nemo.layers is layers


def test_what_is_masked_weighs_nothing_and_is_a_normal_number() -> None:
    """Scores as far apart as they may be make no numbers that processors are slow with."""
    import torch  # noqa: PLC0415 - comes with the extra nemo

    from riva_speech.servicemaker.families import whole  # noqa: PLC0415 - needs torch

    scores = torch.tensor([[[[3.0, -90.0, -10_000.0], [-10_000.0, -10_000.0, -9_900.0]]]])

    weights = whole.softmax(scores)

    torch.testing.assert_close(weights, torch.softmax(scores, dim=3), atol=1e-30, rtol=1e-6)
    assert weights.min() > torch.finfo(torch.float32).tiny
