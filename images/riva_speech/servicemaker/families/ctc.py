"""CTC models with a Conformer or FastConformer encoder: ``EncDecCTCModel`` and its BPE twin.

NeMo's own exporter writes one graph for whole utterances and, for a cache-aware encoder, one for
each look-ahead it was trained with. All of them have the same weights, so these are stored once,
in a file that the graphs share.
"""

from __future__ import annotations

import hashlib
import logging
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from riva_speech.asr.pipeline import AcousticConfig, StreamingConfig
from riva_speech.audio.features import FeatureConfig
from riva_speech.errors import DamagedArchiveError, UnsupportedError
from riva_speech.servicemaker.checkpoint import Checkpoint, checked_module
from riva_speech.text.vocabulary import Vocabulary, VocabularyType

if TYPE_CHECKING:
    from collections.abc import Iterable

    import onnx
    import torch
    from nemo.collections.asr.models import EncDecCTCModel

CLASSES = ("EncDecCTCModel", "EncDecCTCModelBPE")

OFFLINE_GRAPH = "model_graph.onnx"
SHARED_WEIGHTS = "model_weights.bin"
FEATURIZER = "featurizer.npz"
VOCABULARY = "vocabulary.txt"
# SentencePiece's own file, where the model has one: lexicons are spelt with it.
TOKENIZER = "tokenizer.model"

# Smaller tensors stay in the graphs: ONNX Runtime reads shapes from them while it loads.
_MIN_SHARED_BYTES = 1024
# Tensors begin on pages, so that the file can be mapped into memory.
_PAGE_BYTES = 4096
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Export:
    """What a checkpoint became: files by artefact name, and a description of the model."""

    files: dict[str, Path]
    acoustic: AcousticConfig


def streaming_graph_name(config: StreamingConfig, *, first: bool = False) -> str:
    """Return the artefact name of the graph for one look-ahead; ``first`` begins a stream."""
    left, right = config.att_context_size
    return f"model_graph_streaming_{left}_{right}{'_first' if first else ''}.onnx"


def export(checkpoint: Checkpoint, folder: Path, *, device: str, onnx_opset: int) -> Export:
    """Export a checkpoint into ``folder``.

    Raises:
        UnsupportedError: The checkpoint is of another architecture.
        DamagedArchiveError: Its weights do not load, or do not fit its configuration.
    """
    model = restore(checkpoint, device=device)
    acoustic = describe(model)
    _save_featurizer(model, folder / FEATURIZER)
    vocabulary = Vocabulary(tuple(model.decoder.vocabulary), acoustic.vocabulary_type)
    vocabulary.save(folder / VOCABULARY)
    graphs = list(_export_graphs(model, acoustic.streaming, folder, onnx_opset))
    share_weights(graphs, folder / SHARED_WEIGHTS)
    names = [FEATURIZER, VOCABULARY, SHARED_WEIGHTS, *(graph.name for graph in graphs)]
    files = {name: folder / name for name in names}
    if acoustic.vocabulary_type is VocabularyType.SENTENCEPIECE:
        files[TOKENIZER] = Path(_tokenizer(checkpoint)["model_path"])
    return Export(files, acoustic)


def _export_graphs(
    model: EncDecCTCModel, streaming: Iterable[StreamingConfig], folder: Path, onnx_opset: int
) -> Iterable[Path]:
    """Run NeMo's exporter for whole utterances, then for each look-ahead."""
    yield _export_graph(model, folder / OFFLINE_GRAPH, onnx_opset)
    model.set_export_config({"cache_support": "True"})
    for config in streaming:
        model.encoder.set_default_att_context_size(list(config.att_context_size))
        yield _export_graph(model, folder / streaming_graph_name(config), onnx_opset)
        # The number of steps to drop is a constant of the graph, and a stream begins with none.
        model.encoder.streaming_cfg.drop_extra_pre_encoded = 0
        yield _export_graph(model, folder / streaming_graph_name(config, first=True), onnx_opset)


def _export_graph(model: EncDecCTCModel, path: Path, onnx_opset: int) -> Path:
    _log.info("Exporting %s", path.name)
    with warnings.catch_warnings():
        # torch's tracer warns of every shape that it takes as constant; the graphs are checked
        # against the model instead.
        warnings.simplefilter("ignore")
        model.export(str(path), onnx_opset_version=onnx_opset)
    return path


def restore(checkpoint: Checkpoint, *, device: str = "cpu") -> EncDecCTCModel:
    """Build the model from allowed classes only and load its weights.

    The errors are those of ``export``.
    """
    from nemo.collections.asr import models  # noqa: PLC0415 - takes ten seconds
    from nemo.utils import logging as nemo_log  # noqa: PLC0415 - as above
    from omegaconf import OmegaConf  # noqa: PLC0415 - comes with NeMo

    nemo_log.setLevel(logging.ERROR)

    config = OmegaConf.create(_trusted_config(checkpoint))
    try:
        model = getattr(models, checkpoint.class_name)(cfg=config)
        model.load_state_dict(_load_weights(checkpoint.weights))
    except (RuntimeError, KeyError, ValueError, TypeError) as error:
        raise DamagedArchiveError(
            f"NeMo cannot build the model of {checkpoint.source}: {error}"
        ) from error
    return model.eval().to(device)


def _load_weights(path: Path) -> dict[str, torch.Tensor]:
    import pickle  # noqa: PLC0415 - only its error type is used

    import torch  # noqa: PLC0415 - as NeMo

    try:
        weights: dict[str, torch.Tensor] = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, KeyError) as error:
        reason = str(error).splitlines()[0]
        raise DamagedArchiveError(f"the checkpoint's weights are refused: {reason}") from error
    return weights


def _trusted_config(checkpoint: Checkpoint) -> dict[str, Any]:
    """Return the parts of the configuration that make the model; training's are left out."""
    parts = {name: checked_module(checkpoint.section(name)) for name in _MODULE_SECTIONS}
    if "sample_rate" in checkpoint.config:
        parts["sample_rate"] = checkpoint.config["sample_rate"]
    if checkpoint.class_name.endswith("BPE"):
        return {**parts, "tokenizer": _tokenizer(checkpoint)}
    return {**parts, "labels": parts["decoder"].get("vocabulary")}


_MODULE_SECTIONS = ("preprocessor", "encoder", "decoder")


def _tokenizer(checkpoint: Checkpoint) -> dict[str, Any]:
    """Return a tokenizer configuration whose files are those of the unpacked checkpoint."""
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


def describe(model: EncDecCTCModel) -> AcousticConfig:
    """Read from a model what build, deploy and serve need to know.

    Raises:
        UnsupportedError: Its preprocessor does what this project's features do not.
    """
    features = _describe_features(model.preprocessor.featurizer)
    return AcousticConfig(
        features=features,
        vocabulary_type=_vocabulary_type(model),
        ms_per_timestep=features.frame_ms * model.encoder.subsampling_factor,
        # Relative encodings of L steps have 2 L - 1 entries, absolute ones L.
        max_steps=(model.encoder.pos_enc.pe.size(1) + 1) // 2,
        streaming=tuple(_describe_streaming(model, features)),
    )


def _describe_features(featurizer: Any) -> FeatureConfig:  # noqa: ANN401 - NeMo has no types
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


def _vocabulary_type(model: EncDecCTCModel) -> VocabularyType:
    if not hasattr(model, "tokenizer_type"):
        return VocabularyType.CHARACTER
    if model.tokenizer_type == "bpe":
        return VocabularyType.SENTENCEPIECE
    return VocabularyType.WORDPIECE


def _describe_streaming(
    model: EncDecCTCModel, features: FeatureConfig
) -> Iterable[StreamingConfig]:
    """Describe each look-ahead of a cache-aware encoder, the default first; none for others."""
    encoder = model.encoder
    causal = encoder.att_context_style == "chunked_limited" and encoder.conv_context_size[1] == 0
    if not causal or features.normalize != "NA":
        return
    for left, right in encoder.att_context_size_all:
        if left < 0 or right < 0:
            continue
        encoder.set_default_att_context_size([left, right])
        geometry = encoder.streaming_cfg
        if not isinstance(geometry.shift_size, list) or geometry.pre_encode_cache_size[0]:
            continue
        channel, time, _ = encoder.get_initial_cache_state(batch_size=1)
        yield StreamingConfig(
            att_context_size=(left, right),
            first_frames=geometry.shift_size[0],
            chunk_frames=geometry.shift_size[1],
            history_frames=geometry.pre_encode_cache_size[1],
            chunk_steps=geometry.valid_out_len,
            channel_cache=(channel.shape[0], *channel.shape[2:]),
            time_cache=(time.shape[0], *time.shape[2:]),
        )
    encoder.set_default_att_context_size(list(encoder.att_context_size_all[0]))


def _save_featurizer(model: EncDecCTCModel, path: Path) -> None:
    featurizer = model.preprocessor.featurizer
    np.savez(
        path,
        window=featurizer.window.cpu().numpy().astype(np.float32),
        filterbank=featurizer.fb[0].cpu().numpy().astype(np.float32),
    )


def share_weights(graphs: Iterable[Path], weights: Path) -> None:
    """Move the large tensors of all graphs into one file that each of them refers to.

    Tensors with the same content are stored once, so a second graph of the same model costs
    little more than its nodes.
    """
    import onnx  # noqa: PLC0415 - comes with the extra nemo

    stored: dict[bytes, int] = {}
    with weights.open("wb") as file:
        for path in graphs:
            model = onnx.load(path)
            _lift_constants(model.graph)
            for tensor in model.graph.initializer:
                _externalise(tensor, weights.name, file, stored)
            onnx.save(model, path)


def _lift_constants(graph: onnx.GraphProto) -> None:
    """Turn large ``Constant`` nodes, such as positional encodings, into initializers.

    Only those can lie outside the graph.
    """
    for node in [node for node in graph.node if node.op_type == "Constant"]:
        tensor = node.attribute[0].t
        if len(tensor.raw_data) >= _MIN_SHARED_BYTES:
            tensor.name = node.output[0]
            graph.initializer.append(tensor)
            graph.node.remove(node)


def _externalise(
    tensor: onnx.TensorProto, location: str, file: IO[bytes], stored: dict[bytes, int]
) -> None:
    from onnx.external_data_helper import set_external_data  # noqa: PLC0415 - as onnx

    data = tensor.raw_data
    if len(data) < _MIN_SHARED_BYTES:
        return
    digest = hashlib.sha256(data).digest()
    if digest not in stored:
        file.write(bytes(-file.tell() % _PAGE_BYTES))
        stored[digest] = file.tell()
        file.write(data)
    set_external_data(tensor, location, offset=stored[digest], length=len(data))
    tensor.ClearField("raw_data")
    tensor.data_location = tensor.EXTERNAL
