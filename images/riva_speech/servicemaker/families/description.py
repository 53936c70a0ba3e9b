"""What build, deploy and serve need to know of a model, read from NeMo's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from riva_speech.asr.pipeline import AcousticConfig
from riva_speech.asr.streaming_config import CacheConfig, StreamingConfig
from riva_speech.audio.features import FeatureConfig
from riva_speech.errors import UnsupportedError
from riva_speech.servicemaker.families import context
from riva_speech.text.vocabulary import Vocabulary, VocabularyType

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from riva_speech.asr.pipeline import TransducerConfig
    from riva_speech.asr.streaming_config import AttentionContext

# Convolutions reach any length, but the mask of squeeze-and-excitation is a table in the graph:
# this many feature frames are what NVIDIA's converter gives it too.
_CONVOLUTION_FRAMES = 100_000
_ATTENTION = ("rel_pos", "abs_pos")
# A streaming step has tables that grow with the squares of its chunk, in frames, and of its
# context, in encoder steps: no checkpoint may ask for more than minutes of either.
_LONGEST_CHUNK = _LONGEST_CONTEXT = 5_000


def limit_length(model: Any, max_frames: int | None) -> None:
    """Set the longest input, in feature frames, that the model's tables reach.

    The default is what the checkpoint says of itself, for convolutions 100,000.
    """
    encoder = model.encoder
    if not _is_convolutional(encoder):
        if max_frames:
            encoder.set_max_audio_length(-(-max_frames // encoder.subsampling_factor))
        return
    import torch  # noqa: PLC0415 - comes with NeMo

    frames = max_frames or _CONVOLUTION_FRAMES
    encoder.max_audio_length = frames
    for module in encoder.modules():
        if type(module).__name__ == "SqueezeExcite":
            module.set_max_len(frames, torch.arange(frames, device=next(model.parameters()).device))


def describe(
    model: Any,
    tokens: Sequence[str],
    transducer: TransducerConfig | None = None,
    *,
    offline_context: AttentionContext | None = None,
) -> tuple[AcousticConfig, Vocabulary]:
    """Read a model's facts, and its vocabulary of ``tokens``.

    Whole utterances have the ``offline_context`` asked for, or the checkpoint's first.

    Raises:
        UsageError: The model cannot have that context.
        UnsupportedError: Its preprocessor or its attention does what this project does not.
    """
    features = _features(model.preprocessor.featurizer)
    stride = features.frame_ms * model.encoder.subsampling_factor
    kind = _vocabulary_type(model)
    streaming = tuple(_streaming(model.encoder, features))
    steps = _max_steps(model.encoder)
    acoustic = AcousticConfig(
        features=features,
        vocabulary_type=kind,
        ms_per_timestep=stride,
        max_steps=steps,
        streaming=streaming,
        transducer=transducer,
        offline_context=_offline_context(model.encoder, offline_context, streaming, steps),
    )
    return acoustic, Vocabulary(tuple(tokens), kind)


def architecture(model: Any, acoustic: AcousticConfig) -> str:
    """Return a line that says what the model is."""
    encoder, factor = model.encoder, model.encoder.subsampling_factor
    if _is_convolutional(encoder):
        shape = f"{len(encoder.encoder)} convolutional blocks"
    else:
        shape = f"Conformer encoder of {len(encoder.layers)} layers"
    reach = "whole utterances"
    if acoustic.offline_context:
        left, right = acoustic.offline_context
        reach = f"cache-aware, {reach} with the context ({left}, {right})"
    return (
        f"{shape}, {factor}x subsampling ({acoustic.ms_per_timestep} ms a step), {acoustic.head} "
        f"head, {acoustic.vocabulary_type.value} vocabulary, {reach}"
    )


def _is_convolutional(encoder: Any) -> bool:
    return not hasattr(encoder, "pos_enc")


def _max_steps(encoder: Any) -> int:
    if _is_convolutional(encoder):
        return int(encoder.max_audio_length) // int(encoder.subsampling_factor)
    if encoder.self_attention_model not in _ATTENTION:
        raise UnsupportedError(
            f"the model's attention is {encoder.self_attention_model!r}, which is not supported",
            hint="change it in NeMo: model.change_attention_model('rel_pos'), then save it",
        )
    # Relative encodings of L steps have 2 L - 1 entries, absolute ones L.
    positions = int(encoder.pos_enc.pe.size(1))
    return (positions + 1) // 2 if encoder.self_attention_model == "rel_pos" else positions


def _features(featurizer: Any) -> FeatureConfig:
    unsupported = featurizer.exact_pad or featurizer.frame_splicing > 1 or not featurizer.log
    if unsupported or featurizer.normalize not in ("NA", None, "per_feature"):
        raise UnsupportedError(
            "the model's preprocessor uses exact_pad, frame_splicing, linear mels or the "
            f"normalisation {featurizer.normalize!r}, which are not supported"
        )
    return FeatureConfig(
        sample_rate=int(featurizer.sample_rate),
        n_fft=int(featurizer.n_fft),
        hop_length=int(featurizer.hop_length),
        win_length=int(featurizer.win_length),
        preemphasis=float(featurizer.preemph or 0),
        mag_power=float(featurizer.mag_power),
        log_zero_guard_type=str(featurizer.log_zero_guard_type),
        log_zero_guard=float(featurizer.log_zero_guard_value_fn(featurizer.fb)),
        normalize=featurizer.normalize or "NA",
        n_mels=int(featurizer.nfilt),
    )


def _vocabulary_type(model: Any) -> VocabularyType:
    if not hasattr(model, "tokenizer_type"):
        return VocabularyType.CHARACTER
    if model.tokenizer_type == "bpe":
        return VocabularyType.SENTENCEPIECE
    return VocabularyType.WORDPIECE


def _streaming(encoder: Any, features: FeatureConfig) -> Iterable[StreamingConfig]:
    """Describe each look-ahead of a cache-aware encoder, the default first; none for others.

    Those that reach too far are left out.
    """
    if features.normalize != "NA" or not _is_causal(encoder):
        return
    for left, right in encoder.att_context_size_all:
        frames = (right + 1) * encoder.subsampling_factor
        if left < 1 or right < 0 or left > _LONGEST_CONTEXT or frames > _LONGEST_CHUNK:
            continue
        encoder.set_default_att_context_size([left, right])
        geometry = encoder.streaming_cfg
        if not isinstance(geometry.shift_size, list) or geometry.pre_encode_cache_size[0]:
            continue
        yield StreamingConfig(
            att_context_size=(left, right),
            first_frames=geometry.shift_size[0],
            chunk_frames=geometry.shift_size[1],
            history_frames=geometry.pre_encode_cache_size[1],
            chunk_steps=geometry.valid_out_len,
            caches=_caches(encoder, left),
        )
    encoder.set_default_att_context_size(list(encoder.att_context_size_all[0]))


def _offline_context(
    encoder: Any,
    asked: AttentionContext | None,
    streaming: Sequence[StreamingConfig],
    steps: int,
) -> AttentionContext | None:
    """Return how far whole utterances of a cache-aware model look; None for others."""
    if not streaming:
        context.refuse(asked)
        return None
    if asked is not None:
        return context.checked(asked, steps)
    left, right = encoder.att_context_size_all[0]
    return left, right


def _caches(encoder: Any, left: int) -> tuple[CacheConfig, ...]:
    """Describe this project's own caches, or NeMo's where its graph is taken."""
    from riva_speech.servicemaker.families import streaming  # noqa: PLC0415 - needs torch

    if streaming.is_supported(encoder):
        return streaming.caches(encoder, left)
    channel, time, _ = encoder.get_initial_cache_state(batch_size=1)
    return (
        CacheConfig(streaming.ATTENTION_CACHE, (channel.shape[0], *channel.shape[2:])),
        CacheConfig(streaming.CONVOLUTION_CACHE, (time.shape[0], *time.shape[2:])),
    )


def _is_causal(encoder: Any) -> bool:
    if _is_convolutional(encoder):
        return False
    return encoder.att_context_style == "chunked_limited" and encoder.conv_context_size[1] == 0


def save_featurizer(model: Any, path: Path) -> None:
    """Write the window and the filterbank, which come with the model."""
    featurizer = model.preprocessor.featurizer
    np.savez(
        path,
        window=featurizer.window.cpu().numpy().astype(np.float32),
        filterbank=featurizer.fb[0].cpu().numpy().astype(np.float32),
    )
