"""Small checkpoints, made by real NeMo, with random weights.

Their decoders are scaled up and biased against the blank, so that argmax wanders over the
vocabulary instead of resting on one token: texts are nonsense, and long enough to compare.
"""

from __future__ import annotations

import logging
import tarfile
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import yaml

if TYPE_CHECKING:
    from pathlib import Path

LETTERS = list(" abcdefghijklmnopqrstuvwxyz'")


@dataclass(frozen=True)
class Architecture:
    """What distinguishes the checkpoints that tests convert.

    ``channels`` are those of the subsampling. ``blocks`` makes a convolutional encoder, ``head``
    is ctc, rnnt, tdt or hybrid (RNN-T and CTC).
    """

    cache_aware: bool
    bpe: bool
    subsampling: str = "dw_striding"
    factor: int = 8
    width: int = 32
    layers: int = 2
    heads: int = 4
    channels: int = 16
    positions: int = 2000
    blocks: str = ""
    head: str = "ctc"

    @property
    def class_name(self) -> str:
        """NeMo's class for it."""
        middle = {"ctc": "CTCModel", "hybrid": "HybridRNNTCTC"}.get(self.head, "RNNT")
        if self.head == "ctc":
            return f"EncDec{middle}{'BPE' if self.bpe else ''}"
        return f"EncDec{middle}{'BPE' if self.bpe else ''}Model"


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
    "conformer-offline-bpe": Architecture(
        cache_aware=False, bpe=True, subsampling="striding", factor=4
    ),
    "jasper-char": Architecture(cache_aware=False, bpe=False, blocks="jasper", factor=2),
    "quartznet-char": Architecture(cache_aware=False, bpe=False, blocks="quartznet", factor=2),
    "citrinet-bpe": Architecture(cache_aware=False, bpe=True, blocks="citrinet"),
    "hybrid-offline-bpe": Architecture(cache_aware=False, bpe=True, head="hybrid"),
    "hybrid-streaming-char": Architecture(cache_aware=True, bpe=False, head="hybrid"),
}

TRANSDUCERS = {
    "rnnt-offline-bpe": Architecture(cache_aware=False, bpe=True, head="rnnt"),
    "rnnt-offline-char": Architecture(
        cache_aware=False, bpe=False, head="rnnt", subsampling="striding", factor=4
    ),
    "rnnt-streaming-bpe": Architecture(cache_aware=True, bpe=True, head="rnnt"),
    "tdt-offline-bpe": Architecture(cache_aware=False, bpe=True, head="tdt"),
    "hybrid-offline-bpe": ARCHITECTURES["hybrid-offline-bpe"],
    "hybrid-streaming-char": ARCHITECTURES["hybrid-streaming-char"],
}

DURATIONS = [0, 1, 2, 3, 4]


def save_checkpoint(
    architecture: Architecture, path: Path, *, seed: int = 0, talkative: bool = True
) -> None:
    """Make a model with random weights, ``talkative`` as above, and save it as a ``.nemo``."""
    import torch
    from nemo.collections.asr import models
    from nemo.utils import logging as nemo_log
    from omegaconf import OmegaConf, open_dict

    nemo_log.setLevel(logging.ERROR)
    torch.manual_seed(seed)
    config = _config(architecture)
    if architecture.bpe:
        folder = path.parent / f"{path.stem}-tokenizer"
        _train_tokenizer(folder)
        config["tokenizer"] = {"dir": str(folder), "type": "bpe"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = getattr(models, architecture.class_name)(cfg=OmegaConf.create(config))
        with torch.no_grad():
            if talkative:
                _make_talkative(model, architecture)
        with open_dict(model.cfg):  # transcribe looks for it in the checkpoint
            model.cfg.validation_ds = {"manifest_filepath": None}
        model.eval().save_to(str(path))


def _make_talkative(model: Any, architecture: Architecture) -> None:
    """Scale up what chooses tokens, so that they follow the sound and each other."""
    if architecture.head in ("ctc", "hybrid"):
        head = model.decoder if architecture.head == "ctc" else model.ctc_decoder
        head.decoder_layers[0].weight *= 20
        head.decoder_layers[0].bias[-1] -= 10
    if architecture.head == "ctc":
        return
    import torch

    model.eval()
    noise = torch.randn(1, 80, 400)
    encoded = model.encoder(audio_signal=noise, length=torch.tensor([400]))[0][0]
    joint, outputs = model.joint, model.joint.joint_net[-1]
    joint.enc.weight *= 3 / (encoded.std(dim=1) + 1e-3)
    joint.enc.bias[:] = -(joint.enc.weight @ encoded.mean(dim=1))
    joint.pred.weight *= 3
    for parameter in model.decoder.parameters():
        parameter.mul_(5)
    outputs.weight *= 2
    outputs.bias[len(joint.vocabulary)] += 1 if architecture.head == "tdt" else 3


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
        "encoder": _convolutions(architecture) if architecture.blocks else _conformer(architecture),
        **_head(architecture),
        # Parts of real checkpoints that conversion must leave alone.
        "optim": {"name": "adamw", "lr": 1e-3},
    }


def _conformer(architecture: Architecture) -> dict[str, Any]:
    streaming = architecture.cache_aware
    return {
        "_target_": "nemo.collections.asr.modules.ConformerEncoder",
        "feat_in": 80,
        "n_layers": architecture.layers,
        "d_model": architecture.width,
        "subsampling": architecture.subsampling,
        "subsampling_factor": architecture.factor,
        "subsampling_conv_channels": architecture.channels,
        "causal_downsampling": streaming,
        "n_heads": architecture.heads,
        "att_context_size": [[70, 6], [70, 1]] if streaming else [-1, -1],
        "att_context_style": "chunked_limited" if streaming else "regular",
        "xscaling": False,
        "pos_emb_max_len": architecture.positions,
        "conv_kernel_size": 9,
        "conv_norm_type": "layer_norm" if streaming else "batch_norm",
        "conv_context_size": "causal" if streaming else None,
    }


def _convolutions(architecture: Architecture) -> dict[str, Any]:
    """Return a few blocks of the kind that Jasper, QuartzNet or Citrinet is made of."""
    block: dict[str, Any] = {
        "filters": architecture.width,
        "repeat": 2,
        "kernel": [11],
        "stride": [1],
        "dilation": [1],
        "dropout": 0.0,
        "residual": True,
        "separable": architecture.blocks != "jasper",
    }
    if architecture.blocks == "citrinet":
        block |= {
            "se": True,
            "se_context_size": -1,
            "stride_last": True,
            "residual_mode": "stride_add",
        }
    first = {**block, "repeat": 1, "residual": False}
    strides = [[2]] * (architecture.factor // 2).bit_length()
    return {
        "_target_": "nemo.collections.asr.modules.ConvASREncoder",
        "feat_in": 80,
        "activation": "relu",
        "conv_mask": True,
        "jasper": [
            {**first, "stride": strides[0]},
            *({**block, "stride": stride} for stride in strides[1:]),
            block,
            {**first, "kernel": [1]},
        ],
    }


def _head(architecture: Architecture) -> dict[str, Any]:
    ctc = {
        "_target_": "nemo.collections.asr.modules.ConvASRDecoder",
        "feat_in": architecture.width,
        "num_classes": -1 if architecture.bpe else len(LETTERS),
        "vocabulary": [] if architecture.bpe else LETTERS,
    }
    if architecture.head == "ctc":
        return {"decoder": ctc}
    extra = len(DURATIONS) if architecture.head == "tdt" else 0
    transducer: dict[str, Any] = {
        "model_defaults": {"enc_hidden": architecture.width, "pred_hidden": 24, "joint_hidden": 28},
        "decoder": {
            "_target_": "nemo.collections.asr.modules.RNNTDecoder",
            "normalization_mode": None,
            "random_state_sampling": False,
            "blank_as_pad": True,
            "prednet": {"pred_hidden": 24, "pred_rnn_layers": 2, "dropout": 0.1},
        },
        "joint": {
            "_target_": "nemo.collections.asr.modules.RNNTJoint",
            "log_softmax": None,
            "num_extra_outputs": extra,
            "fuse_loss_wer": True,
            "fused_batch_size": 4,
            "jointnet": {"joint_hidden": 28, "activation": "relu", "dropout": 0.1},
        },
        "decoding": {"strategy": "greedy_batch", "greedy": {"max_symbols": 5}},
        "loss": {"loss_name": "default"},
    }
    if extra:
        arguments = {"fastemit_lambda": 0.0, "durations": DURATIONS, "sigma": 0.02, "omega": 0.1}
        transducer["loss"] = {"loss_name": "tdt", "tdt_kwargs": arguments}
        transducer["decoding"] |= {"model_type": "tdt", "durations": DURATIONS}
    if architecture.head == "hybrid":
        transducer["aux_ctc"] = {"ctc_loss_weight": 0.3, "decoder": ctc}
    return transducer


def age(source: Path, target: Path, *, beta: bool) -> None:
    """Rewrite a checkpoint as NeMo 1.0 wrote it, or with ``beta`` as the releases before did.

    Those were compressed; named classes by ``cls`` and ``params`` at first; kept options for
    transforms that are gone, and tables in the weights that are computed today; and knew nothing of
    what came later.
    """
    import torch

    folder = target.parent / f"{target.stem}-contents"
    with tarfile.open(source) as tar:
        tar.extractall(folder, filter="data")
    path = folder / "model_config.yaml"
    config = yaml.safe_load(path.read_text(encoding="utf-8"))
    config["nemo_version"] = "1.0.0b1" if beta else "1.0.0"
    config["target"] = "nemo.collections.asr.models.ctc_models.EncDecCTCModel"
    config["spec_augment"] = {"_target_": "nemo.collections.asr.modules.SpectrogramAugmentation"}
    config["preprocessor"] |= {"stft_conv": True, "pad_to": 16}
    for later in ("labels", "validation_ds"):
        config.pop(later, None)
    if beta:
        for name in ("preprocessor", "encoder", "decoder"):
            section = config[name]
            config[name] = {"cls": section.pop("_target_"), "params": section}
    path.write_text(yaml.safe_dump(config), encoding="utf-8")
    weights = torch.load(folder / "model_weights.ckpt", weights_only=True)
    weights["preprocessor.featurizer.stft.forward_basis"] = torch.zeros(4, 1, 8)
    weights["encoder.pos_enc.pe"] = torch.zeros(1, 9, 4)
    torch.save(weights, folder / "model_weights.ckpt")
    with tarfile.open(target, "w:gz") as tar:
        tar.add(folder, arcname=".")


def _train_tokenizer(folder: Path) -> None:
    import sentencepiece

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
