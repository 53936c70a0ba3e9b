"""From an unpacked checkpoint to NeMo's model, built of allowed classes only."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from riva_speech.errors import DamagedArchiveError, UnsupportedError
from riva_speech.servicemaker import weights
from riva_speech.servicemaker.checkpoint import Checkpoint, checked_module, refuse_code

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch

CTC_CLASSES = ("EncDecCTCModel", "EncDecCTCModelBPE")
TRANSDUCER_CLASSES = ("EncDecRNNTModel", "EncDecRNNTBPEModel")
HYBRID_CLASSES = ("EncDecHybridRNNTCTCModel", "EncDecHybridRNNTCTCBPEModel")
CLASSES = (*CTC_CLASSES, *TRANSDUCER_CLASSES, *HYBRID_CLASSES)

# NeMo's own bound on the symbols of one step, where a checkpoint gives none.
DEFAULT_MAX_SYMBOLS = 10

_MAX_DURATION = 64
# Weights that older checkpoints hold and no model of today reads: tables that are computed.
_COMPUTED = ("encoder.pos_enc.pe", "preprocessor.featurizer.")
# What only training reads, and what would change how the model is called.
_TRAINING_JOINT = ("fuse_loss_wer", "fused_batch_size", "preserve_memory")
# To convolve in pieces, or to be told not to, only makes NeMo call its convolutions in other ways.
_PIECES = "subsampling_conv_chunking_factor"


def restore(checkpoint: Checkpoint, *, device: str = "cpu") -> Any:
    """Build the model of a checkpoint and load its weights.

    Raises:
        UnsupportedError: The checkpoint asks for a class, tokenizer or loss that is not supported.
        DamagedArchiveError: Its weights do not load, or do not fit its configuration.
    """
    from hydra.errors import HydraException  # noqa: PLC0415 - comes with NeMo
    from nemo.collections.asr import models  # noqa: PLC0415 - takes ten seconds
    from nemo.utils import logging as nemo_log  # noqa: PLC0415 - as above
    from omegaconf import OmegaConf  # noqa: PLC0415 - comes with NeMo
    from omegaconf.errors import OmegaConfBaseException  # noqa: PLC0415 - as above

    from riva_speech.servicemaker.families.uninitialised import (  # noqa: PLC0415 - as above
        Uninitialised,
    )

    nemo_log.setLevel(logging.ERROR)
    trusted = trusted_config(checkpoint)
    loaded = weights.load(checkpoint.weights)
    config = OmegaConf.create(trusted)
    try:
        weights.refuse_giants(trusted, loaded, resolved=config)
        with Uninitialised():
            model = getattr(models, checkpoint.class_name)(cfg=config)
        _load(model, loaded)
    except (
        ArithmeticError,
        AssertionError,
        AttributeError,
        HydraException,  # around whatever the constructor of a part raises
        LookupError,
        OmegaConfBaseException,
        RuntimeError,
        TypeError,
        ValueError,
    ) as error:
        reason = " ".join(str(error).split())
        raise DamagedArchiveError(
            f"NeMo cannot build the model of {checkpoint.source}: {reason}"
        ) from error
    return model.eval().to(device)


def _load(model: torch.nn.Module, loaded: Mapping[str, torch.Tensor]) -> None:
    """Load weights; those that NeMo computes may be missing, or be there without being asked for.

    They take the places of the model's own, so that there are never two of each.

    Raises:
        ValueError: Others are.
    """
    kinds = {name: tensor.dtype for name, tensor in model.state_dict().items()}
    fitting = {name: tensor.to(kinds.get(name, tensor.dtype)) for name, tensor in loaded.items()}
    missing, unexpected = model.load_state_dict(fitting, strict=False, assign=True)
    wrong = [name for name in (*missing, *unexpected) if not name.startswith(_COMPUTED)]
    if wrong:
        raise ValueError(f"its weights do not fit its configuration: {', '.join(wrong[:5])}")


def trusted_config(checkpoint: Checkpoint) -> dict[str, Any]:
    """Return the parts of the configuration that make the model; training's are left out.

    The errors are those of ``restore``.
    """
    parts: dict[str, Any] = {name: checked_module(checkpoint.section(name)) for name in _MODULES}
    parts["encoder"].pop(_PIECES, None)
    if "sample_rate" in checkpoint.config:
        parts["sample_rate"] = checkpoint.config["sample_rate"]
    if checkpoint.class_name not in CTC_CLASSES:
        parts |= _transducer_parts(checkpoint)
    if checkpoint.class_name in HYBRID_CLASSES:
        ctc = checkpoint.section("aux_ctc").get("decoder")
        parts["aux_ctc"] = {"decoder": checked_module(ctc if isinstance(ctc, dict) else {})}
    if "BPE" in checkpoint.class_name:
        parts["tokenizer"] = tokenizer(checkpoint)
    else:
        parts["labels"] = _labels(checkpoint, parts)
    refuse_code([parts.get(name) for name in ("sample_rate", "tokenizer", "labels")])
    return parts


_MODULES = ("preprocessor", "encoder", "decoder")


def _transducer_parts(checkpoint: Checkpoint) -> dict[str, Any]:
    joint = checked_module(checkpoint.section("joint"))
    defaults = checkpoint.section("model_defaults")
    greedy = {"max_symbols": max_symbols(checkpoint)}
    steps = list(durations(checkpoint))
    kind = {"model_type": "tdt", "durations": steps} if steps else {}
    return {
        "joint": {key: value for key, value in joint.items() if key not in _TRAINING_JOINT},
        "model_defaults": {
            key: value for key, value in defaults.items() if isinstance(value, (int, float))
        },
        "decoding": {"strategy": "greedy_batch", "greedy": greedy, **kind},
        "loss": _loss(checkpoint),
    }


def max_symbols(checkpoint: Checkpoint) -> int:
    """Return how many symbols the checkpoint's greedy decoding allows at one step."""
    decoding = checkpoint.config.get("decoding")
    greedy = decoding.get("greedy") if isinstance(decoding, dict) else None
    given = greedy.get("max_symbols") if isinstance(greedy, dict) else None
    return given if isinstance(given, int) and given > 0 else DEFAULT_MAX_SYMBOLS


def durations(checkpoint: Checkpoint) -> tuple[int, ...]:
    """Return the durations that a TDT model predicts; none for other transducers.

    Raises:
        UnsupportedError: The checkpoint was trained with another kind of transducer.
    """
    loss = checkpoint.config.get("loss")
    name = loss.get("loss_name", "default") if isinstance(loss, dict) else "default"
    if name in ("default", "warprnnt", "warprnnt_numba", "pytorch", "graph_rnnt"):
        return ()
    if name != "tdt":
        raise UnsupportedError(
            f"transducers of the kind {name!r} are not supported", hint="RNN-T and TDT are"
        )
    assert isinstance(loss, dict)  # it has a name
    values = (loss.get("tdt_kwargs") or {}).get("durations")
    usable = isinstance(values, list) and all(isinstance(one, int) for one in values)
    if not usable or not values or not all(0 <= one <= _MAX_DURATION for one in values):
        raise DamagedArchiveError(f"{checkpoint.source} is a TDT model without usable durations")
    return tuple(values)


def _loss(checkpoint: Checkpoint) -> dict[str, Any]:
    """Return a loss that makes NeMo build the same model; it is never computed."""
    steps = durations(checkpoint)
    if not steps:
        return {"loss_name": "warprnnt_numba", "warprnnt_numba_kwargs": {}}
    return {"loss_name": "tdt", "tdt_kwargs": {"durations": list(steps)}}


def _labels(checkpoint: Checkpoint, parts: Mapping[str, Any]) -> list[str]:
    """Return a character model's vocabulary, which lies in several places.

    Raises:
        DamagedArchiveError: It lies in none.
    """
    places = (
        checkpoint.config.get("labels"),
        parts["decoder"].get("vocabulary"),
        parts.get("joint", {}).get("vocabulary"),
    )
    for labels in places:
        if isinstance(labels, list) and labels:
            return [str(label) for label in labels]
    raise DamagedArchiveError(f"{checkpoint.source} names no vocabulary")


def tokenizer(checkpoint: Checkpoint) -> dict[str, Any]:
    """Return a tokenizer configuration whose files are those of the unpacked checkpoint.

    Raises:
        UnsupportedError: The tokenizer is of another kind than SentencePiece or WordPiece.
        DamagedArchiveError: Its file is missing.
    """
    section = checkpoint.section("tokenizer")
    kind = section.get("type")
    if kind not in ("bpe", "wpe"):
        raise UnsupportedError(f"tokenizer type {kind!r} is not supported", hint="bpe and wpe are")
    paths = {
        name: checkpoint.artifact(section.get(name))
        for name in ("model_path", "vocab_path", "spe_tokenizer_vocab")
    }
    found = {name: str(path) for name, path in paths.items() if path}
    needed = "model_path" if kind == "bpe" else "vocab_path"
    if needed not in found:
        raise DamagedArchiveError(f"{checkpoint.source} names a tokenizer that it does not hold")
    return {"type": kind, "dir": str(checkpoint.folder), **found}
