"""Small encoders of NeMo with random weights, without a checkpoint around them."""

from __future__ import annotations

from typing import Any


def encoder(context: tuple[int, int], **different: Any) -> Any:
    """Make one that hears ``context`` steps before and behind; cache-aware where nothing differs.

    Its biases of positions are random, too, which NeMo begins with zeros.
    """
    import torch  # noqa: PLC0415 - comes with the extra nemo
    from nemo.collections.asr.modules import ConformerEncoder  # noqa: PLC0415 - as above

    torch.manual_seed(0)
    settings = {
        "feat_in": 80,
        "n_layers": 2,
        "d_model": 32,
        "n_heads": 4,
        "subsampling": "dw_striding",
        "subsampling_factor": 8,
        "subsampling_conv_channels": 16,
        "causal_downsampling": True,
        "att_context_size": list(context),
        "att_context_style": "chunked_limited",
        "conv_kernel_size": 9,
        "conv_norm_type": "layer_norm",
        "conv_context_size": "causal",
        "pos_emb_max_len": 200,
    }
    made = ConformerEncoder(**{**settings, **different}).eval()
    for name, parameter in made.named_parameters():
        if "pos_bias" in name:
            torch.nn.init.normal_(parameter)
    return made
