"""How many weights a model must have at least, by its configuration, before NeMo builds it.

Each number of a configuration may be sensible and their product take all of a machine's memory, so
products are what is counted here: those of NeMo's own layers, and never more than they have.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

_CONVOLVED = ("striding", "dw_striding", "vggnet")
_STACKED = ("stacking", "stacking_norm")
_FEWEST_STRIDED = 2


def fewest_weights(config: Mapping[str, Any]) -> int:
    """Return no more weights than a model of this configuration has."""
    encoder = _section(config, "encoder")
    return (
        _conformer(encoder)
        + _subsampling(encoder)
        + _convolutional(encoder)
        + _prediction(_section(_section(config, "decoder"), "prednet"))
        + _joint(config)
    )


def filters(config: Mapping[str, Any]) -> float:
    """Return how many numbers the filters of a model's features take, at least their window's.

    They are computed, so no weights bound them.
    """
    features = _section(config, "preprocessor")
    points = max(_window(features), count(features.get("n_fft")) // 2)
    return points * count(features.get("features"), 64)


def count(value: object, default: int = 0) -> int:
    """Return a number of which there are some; one below zero must make up for no other."""
    return value if isinstance(value, int) and value > 0 else default


def _section(config: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = config.get(name)
    return found if isinstance(found, Mapping) else {}


def _window(features: Mapping[str, Any]) -> float:
    """Return the samples of a window, of which the transform has under two times as many points."""
    seconds, rate = features.get("window_size", 0.02), features.get("sample_rate", 16_000)
    if seconds and isinstance(seconds, (int, float)) and isinstance(rate, (int, float)):
        return seconds * rate
    return count(features.get("n_window_size"))


def _conformer(encoder: Mapping[str, Any]) -> int:
    layers, width = count(encoder.get("n_layers")), count(encoder.get("d_model"))
    wider = count(encoder.get("ff_expansion_factor"), 1)
    return layers * width * (wider * width + count(encoder.get("conv_kernel_size")))


def _subsampling(encoder: Mapping[str, Any]) -> int:
    """Count what makes fewer steps of the features and as wide ones as the layers want.

    What a configuration leaves out has NeMo's defaults.
    """
    width, mels = count(encoder.get("d_model")), count(encoder.get("feat_in"), 1)
    kind = encoder.get("subsampling", "striding")
    factor = count(encoder.get("subsampling_factor", 4))
    if not kind or factor < _FEWEST_STRIDED:
        return mels * width
    if kind in _STACKED:
        return factor * mels * width
    channels = count(encoder.get("subsampling_conv_channels"), width)
    if kind in _CONVOLVED:
        return channels * max(1, mels // factor) * width
    if factor == _FEWEST_STRIDED:  # one convolution along the time is the first and the last
        return mels * width
    return channels * (mels + width)


def _convolutional(encoder: Mapping[str, Any]) -> int:
    """Count the blocks of QuartzNet, Jasper and Citrinet."""
    total, width = 0, count(encoder.get("feat_in"), 1)
    blocks = encoder.get("jasper")
    for block in _entries(blocks):
        filters = count(block.get("filters"), 1)
        repeats = count(block.get("repeat"), 1) - 1
        total += _convolution(block, width, filters)
        total += repeats * _convolution(block, filters, filters)
        total += _squeeze(block, filters)
        width = filters
    return total


def _entries(blocks: object) -> Iterable[Mapping[str, Any]]:
    # OmegaConf's lists are none of Python's.
    found = blocks if hasattr(blocks, "__iter__") and not isinstance(blocks, (str, Mapping)) else ()
    return [block for block in found if isinstance(block, Mapping)]


def _convolution(block: Mapping[str, Any], before: int, after: int) -> int:
    """Count one convolution; a separable one is two: along the time, and across the channels."""
    reach, across = _reach(block), before * after // count(block.get("groups"), 1)
    if not block.get("separable"):
        return across * reach
    return across + count(block.get("heads"), before) * reach


def _reach(block: Mapping[str, Any]) -> int:
    """Return how many steps a block's convolutions see: those beside each other, together."""
    kernel, factor = block.get("kernel"), block.get("kernel_size_factor", 1)
    kernels = [kernel] if isinstance(kernel, int) else list(kernel or ())
    scale = factor if isinstance(factor, (int, float)) and 0 < factor < 1 << 20 else 1
    return max(1, sum(int(count(one) * scale) for one in kernels))


def _squeeze(block: Mapping[str, Any], filters: int) -> int:
    if not block.get("se"):
        return 0
    return 2 * filters * (filters // count(block.get("se_reduction_ratio"), 8))


def _prediction(network: Mapping[str, Any]) -> int:
    return count(network.get("pred_rnn_layers", 1)) * count(network.get("pred_hidden")) ** 2


def _joint(config: Mapping[str, Any]) -> int:
    """Count the joint network; its other two widths stand among the model's defaults."""
    width = count(_section(_section(config, "joint"), "jointnet").get("joint_hidden"))
    defaults = _section(config, "model_defaults")
    return width * (count(defaults.get("enc_hidden")) + count(defaults.get("pred_hidden")))
