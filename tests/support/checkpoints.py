"""Small checkpoints, made by real NeMo, with random weights.

Their decoders are scaled up and biased against the blank, so that argmax wanders over the
vocabulary instead of resting on one token: texts are nonsense, and long enough to compare.
"""

from __future__ import annotations

import logging
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

LETTERS = list(" abcdefghijklmnopqrstuvwxyz'")


@dataclass(frozen=True)
class Architecture:
    """What distinguishes the checkpoints that tests convert."""

    cache_aware: bool
    bpe: bool
    subsampling: str = "dw_striding"
    factor: int = 8
    width: int = 32
    layers: int = 2
    positions: int = 2000


ARCHITECTURES = {
    "fastconformer-streaming-char": Architecture(cache_aware=True, bpe=False),
    "fastconformer-streaming-bpe": Architecture(cache_aware=True, bpe=True),
    "fastconformer-offline-bpe": Architecture(cache_aware=False, bpe=True),
    "conformer-streaming-char": Architecture(
        cache_aware=True, bpe=False, subsampling="striding", factor=4
    ),
    "conformer-offline-char": Architecture(
        cache_aware=False, bpe=False, subsampling="striding", factor=4
    ),
}


def save_checkpoint(architecture: Architecture, path: Path, *, seed: int = 0) -> None:
    """Make a model with random weights and save it as a ``.nemo``."""
    import torch  # noqa: PLC0415 - comes with the extra nemo
    from nemo.collections.asr.models import EncDecCTCModel, EncDecCTCModelBPE  # noqa: PLC0415
    from nemo.utils import logging as nemo_log  # noqa: PLC0415
    from omegaconf import OmegaConf, open_dict  # noqa: PLC0415

    nemo_log.setLevel(logging.ERROR)
    torch.manual_seed(seed)
    config = _config(architecture)
    if architecture.bpe:
        folder = path.parent / f"{path.stem}-tokenizer"
        _train_tokenizer(folder)
        config["tokenizer"] = {"dir": str(folder), "type": "bpe"}
    kind = EncDecCTCModelBPE if architecture.bpe else EncDecCTCModel
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = kind(cfg=OmegaConf.create(config))
        with torch.no_grad():
            model.decoder.decoder_layers[0].weight *= 20
            model.decoder.decoder_layers[0].bias[-1] -= 10
        with open_dict(model.cfg):  # transcribe looks for it in the checkpoint
            model.cfg.validation_ds = {"manifest_filepath": None}
        model.eval().save_to(str(path))


def _config(architecture: Architecture) -> dict[str, Any]:
    streaming = architecture.cache_aware
    return {
        "sample_rate": 16000,
        "labels": LETTERS,
        "preprocessor": {
            "_target_": "nemo.collections.asr.modules.AudioToMelSpectrogramPreprocessor",
            "sample_rate": 16000,
            "normalize": "NA" if streaming else "per_feature",
            "window_size": 0.025,
            "window_stride": 0.01,
            "window": "hann",
            "features": 80,
            "n_fft": 512,
            "log": True,
            "frame_splicing": 1,
            "dither": 1e-5,
            "pad_to": 0,
        },
        "encoder": {
            "_target_": "nemo.collections.asr.modules.ConformerEncoder",
            "feat_in": 80,
            "n_layers": architecture.layers,
            "d_model": architecture.width,
            "subsampling": architecture.subsampling,
            "subsampling_factor": architecture.factor,
            "subsampling_conv_channels": 16,
            "causal_downsampling": streaming,
            "n_heads": 4,
            "att_context_size": [[70, 6], [70, 1]] if streaming else [-1, -1],
            "att_context_style": "chunked_limited" if streaming else "regular",
            "xscaling": False,
            "pos_emb_max_len": architecture.positions,
            "conv_kernel_size": 9,
            "conv_norm_type": "layer_norm" if streaming else "batch_norm",
            "conv_context_size": "causal" if streaming else None,
        },
        "decoder": {
            "_target_": "nemo.collections.asr.modules.ConvASRDecoder",
            "feat_in": architecture.width,
            "num_classes": -1 if architecture.bpe else len(LETTERS),
            "vocabulary": [] if architecture.bpe else LETTERS,
        },
        # Parts of real checkpoints that conversion must leave alone.
        "optim": {"name": "adamw", "lr": 1e-3},
    }


def _train_tokenizer(folder: Path) -> None:
    import sentencepiece  # noqa: PLC0415 - comes with NeMo

    folder.mkdir()
    words = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
    sentences = [" ".join(words[i:] + words[:i]) for i in range(len(words))]
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(sentences),
        model_prefix=str(folder / "tokenizer"),
        vocab_size=40,
        model_type="bpe",
        bos_id=-1,
        eos_id=-1,
        minloglevel=2,
    )
    lines = (folder / "tokenizer.vocab").read_text(encoding="utf-8").splitlines()
    pieces = [line.split("\t")[0] for line in lines][1:]
    (folder / "vocab.txt").write_text("".join(f"{piece}\n" for piece in pieces), encoding="utf-8")
