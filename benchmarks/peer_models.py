"""Exports a checkpoint as its peers take it: NeMo's own graphs, with the metadata of sherpa-onnx.

    python -m benchmarks.peer_models CHECKPOINT FOLDER

Makes FOLDER/{fp32,int8}/{offline,streaming}: `model.onnx`, `tokens.txt` for sherpa-onnx, and
`vocab.txt` and `config.json` for onnx-asr. int8 is made as sherpa-onnx's own scripts make it, by
ONNX Runtime's dynamic quantisation with unsigned weights.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import onnx
import torch
from onnxruntime.quantization import QuantType, quantize_dynamic
from onnxruntime.quantization.shape_inference import quant_pre_process

_LOOK_AHEAD = [70, 1]  # two steps of 80 ms a chunk


def main() -> None:
    """Export whole utterances and streams, each with both weights."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("checkpoint", type=Path, metavar="CHECKPOINT", help="a .nemo")
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="to write to")
    chosen = parser.parse_args()
    export(chosen.checkpoint, chosen.folder)


def export(checkpoint: Path, folder: Path) -> None:
    """Write a checkpoint's graphs with both kinds of weights."""
    from nemo.collections.asr.models import ASRModel

    model: Any = ASRModel.restore_from(str(checkpoint), map_location="cpu").eval()
    metadata = _describe(model)
    offline = folder / "fp32" / "offline"
    _export(model, offline, metadata, streaming=False)
    _quantise(offline, folder / "int8" / "offline")
    if _is_cache_aware(model):
        model.encoder.set_default_att_context_size(_LOOK_AHEAD)
        model.encoder.setup_streaming_params()
        streaming = folder / "fp32" / "streaming"
        _export(model, streaming, {**metadata, **_describe_streams(model)}, streaming=True)
        _quantise(streaming, folder / "int8" / "streaming")


def _is_cache_aware(model: Any) -> bool:
    return model.cfg.encoder.get("att_context_style") == "chunked_limited"


def _describe(model: Any) -> dict[str, Any]:
    normalize = model.cfg.preprocessor.normalize
    return {
        "vocab_size": len(model.decoder.vocabulary),
        "normalize_type": "" if normalize == "NA" else normalize,
        "subsampling_factor": model.cfg.encoder.subsampling_factor,
        "model_type": "EncDecCTCModelBPE",
        "version": "1",
        "model_author": "NeMo",
    }


def _describe_streams(model: Any) -> dict[str, Any]:
    """Return what sherpa-onnx wants to know of chunks and caches."""
    config = model.encoder.streaming_cfg
    chunk, before = _following(config.chunk_size), _following(config.pre_encode_cache_size)
    channel, time, _ = model.encoder.get_initial_cache_state(batch_size=1)
    shapes = {"cache_last_channel": channel.shape, "cache_last_time": time.shape}
    # NeMo's own caches have the layers first, those of its graphs the batch.
    dims = {name: (layers, *rest) for name, (layers, _, *rest) in shapes.items()}
    return {
        "window_size": chunk + before,
        "chunk_shift": chunk,
        **{f"{name}_dim{i + 1}": n for name, sizes in dims.items() for i, n in enumerate(sizes)},
    }


def _following(value: int | list[int]) -> int:
    """Return what holds for all chunks but the first."""
    return int(value[1] if isinstance(value, list) else value)


def _export(model: Any, folder: Path, metadata: dict[str, Any], *, streaming: bool) -> None:
    folder.mkdir(parents=True)
    model.set_export_config({"cache_support": streaming})
    path = folder / "model.onnx"
    with torch.no_grad():
        model.export(str(path), check_trace=False)
    graph = onnx.load(str(path))
    for key, value in metadata.items():
        graph.metadata_props.add(key=key, value=str(value))
    for stray in folder.iterdir():
        stray.unlink()
    onnx.save(graph, str(path))
    _write_tokens(folder, list(model.decoder.vocabulary))


def _write_tokens(folder: Path, vocabulary: list[str]) -> None:
    lines = [f"{token} {i}\n" for i, token in enumerate([*vocabulary, "<blk>"])]
    for name in ("tokens.txt", "vocab.txt"):
        (folder / name).write_text("".join(lines), encoding="utf-8")
    described = {"model_type": "nemo-conformer-ctc", "features_size": 80, "subsampling_factor": 8}
    (folder / "config.json").write_text(json.dumps(described))


def _quantise(source: Path, target: Path) -> None:
    target.mkdir(parents=True)
    prepared = target / "prepared.onnx"
    quant_pre_process(str(source / "model.onnx"), str(prepared), skip_symbolic_shape=True)
    quantize_dynamic(str(prepared), str(target / "model.onnx"), weight_type=QuantType.QUInt8)
    prepared.unlink()
    for name in ("tokens.txt", "vocab.txt", "config.json"):
        (target / name).write_text((source / name).read_text(encoding="utf-8"), encoding="utf-8")


if __name__ == "__main__":
    main()
