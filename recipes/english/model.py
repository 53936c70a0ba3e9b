"""The network and its pieces of words, as NeMo reads them."""

from __future__ import annotations

import io
import tarfile
from typing import IO, TYPE_CHECKING, Any

from recipes.corpus import RATE

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

MELS = 80
# Frames of 80 ms: 5.6 s of past, and 1040, 480 or 80 ms of future. The first is the default.
LOOKAHEADS = [[70, 13], [70, 6], [70, 1]]
# How often training takes each of them.
SHARES = [0.3, 0.5, 0.2]
PIECES = 256
# Of the features of speech at usual levels.
FEATURE_MEAN, FEATURE_DEVIATION = -8.2, 5.6
WIDTH = 192
LAYERS = 12
CONVOLUTIONS = 64


def train_tokenizer(folder: Path, texts: Iterable[str]) -> None:
    """Learn the pieces of words from texts, as SentencePiece BPE, into ``folder``."""
    from sentencepiece import SentencePieceProcessor, SentencePieceTrainer

    folder.mkdir(parents=True, exist_ok=True)
    trained = io.BytesIO()  # a file would remember its path
    SentencePieceTrainer.train(
        sentence_iterator=iter(texts),
        model_writer=trained,
        model_type="bpe",
        vocab_size=PIECES,
        character_coverage=1.0,
        bos_id=-1,
        eos_id=-1,
        minloglevel=2,
    )
    (folder / "tokenizer.model").write_bytes(trained.getvalue())
    pieces = SentencePieceProcessor(model_proto=trained.getvalue())
    names = [pieces.id_to_piece(number) for number in range(pieces.get_piece_size())]
    lines = [name.replace("\u2581", "") if name.startswith("\u2581") else f"##{name}"
             for name in names[1:]]  # fmt: skip
    (folder / "vocab.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")


def encoder() -> dict[str, Any]:
    """Describe a FastConformer encoder that never looks further ahead than its chunk."""
    return {
        "_target_": "nemo.collections.asr.modules.ConformerEncoder",
        "feat_in": MELS,
        "feat_out": -1,
        "n_layers": LAYERS,
        "d_model": WIDTH,
        "subsampling": "dw_striding",
        "subsampling_factor": 8,
        "subsampling_conv_channels": CONVOLUTIONS,
        "causal_downsampling": True,
        "ff_expansion_factor": 4,
        "self_attention_model": "rel_pos",
        "n_heads": 4,
        "att_context_size": LOOKAHEADS,
        "att_context_probs": SHARES,
        "att_context_style": "chunked_limited",
        "xscaling": False,
        "untie_biases": True,
        "pos_emb_max_len": 1000,
        "conv_kernel_size": 9,
        "conv_norm_type": "layer_norm",
        "conv_context_size": "causal",
        "dropout": 0.1,
        "dropout_pre_encoder": 0.1,
        "dropout_emb": 0.0,
        "dropout_att": 0.1,
    }


def preprocessor() -> dict[str, Any]:
    """Describe the features: log mels of 25 ms each 10 ms, not normalised."""
    return {
        "_target_": "nemo.collections.asr.modules.AudioToMelSpectrogramPreprocessor",
        "sample_rate": RATE,
        "normalize": "NA",
        "window_size": 0.025,
        "window_stride": 0.01,
        "window": "hann",
        "features": MELS,
        "n_fft": 512,
        "frame_splicing": 1,
        "dither": 1e-5,
        "pad_to": 0,
    }


def configuration(tokenizer: Path) -> dict[str, Any]:
    """Describe the whole model."""
    return {
        "sample_rate": RATE,
        "log_prediction": False,
        "ctc_reduction": "mean_batch",
        "skip_nan_grad": False,
        "tokenizer": {"dir": str(tokenizer), "type": "bpe"},
        "preprocessor": preprocessor(),
        "spec_augment": {
            "_target_": "nemo.collections.asr.modules.SpectrogramAugmentation",
            "freq_masks": 2,
            "freq_width": 27,
            "time_masks": 10,
            "time_width": 0.05,
        },
        "encoder": encoder(),
        "decoder": {
            "_target_": "nemo.collections.asr.modules.ConvASRDecoder",
            "feat_in": WIDTH,
            "num_classes": -1,
            "vocabulary": [],
        },
        "decoding": {"strategy": "greedy_batch"},
    }


def build(tokenizer: Path) -> Any:
    """Make the model with random weights."""
    from nemo.collections.asr.models import EncDecCTCModelBPE
    from omegaconf import OmegaConf

    model = EncDecCTCModelBPE(cfg=OmegaConf.create(configuration(tokenizer)))
    _expect(model, mean=FEATURE_MEAN, deviation=FEATURE_DEVIATION)
    return model


def _expect(model: Any, *, mean: float, deviation: float) -> None:
    """Scale the first convolution to features that are not normalised."""
    from torch import nn, no_grad

    layers = model.encoder.pre_encode.modules()
    first = next(layer for layer in layers if isinstance(layer, nn.Conv2d))
    with no_grad():
        first.weight /= deviation
        first.bias -= first.weight.sum((1, 2, 3)) * mean


def load_weights(model: Any, path: Path) -> None:
    """Give a model the weights of a `.nemo` or of a training's `.pt`; features' tables stay."""
    from torch import load

    weights = load(_weights_file(path), map_location="cpu", weights_only=True)
    own = dict(model.named_parameters())
    model.load_state_dict({name: weights[name] for name in own}, strict=False)


def _weights_file(path: Path) -> IO[bytes]:
    if path.suffix != ".nemo":
        return io.BytesIO(path.read_bytes())
    with tarfile.open(path) as archive:
        name = next(one for one in archive.getnames() if one.endswith("model_weights.ckpt"))
        file = archive.extractfile(name)
        assert file is not None
        return io.BytesIO(file.read())


def save(model: Any, out: Path) -> None:
    """Write a `.nemo` file with weights of 16 bits, which names no folder of this machine."""
    from omegaconf import OmegaConf

    config = OmegaConf.to_container(model.cfg)
    assert isinstance(config, dict)
    config["tokenizer"]["dir"] = ""
    config["train_ds"] = config["validation_ds"] = {"manifest_filepath": None}
    model.cfg = OmegaConf.create(config)
    for weight in model.parameters():
        weight.data = weight.data.half()
    model.save_to(str(out))
    model.float()
