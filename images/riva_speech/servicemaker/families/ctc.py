"""Models with a CTC head: QuartzNet, Jasper, Citrinet, Conformer, FastConformer, and hybrids.

NeMo's own exporter writes one graph for whole utterances. A cache-aware encoder has two more for
each look-ahead it was trained with. All of them have the same weights, so these are stored once,
in a file that the graphs share.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from riva_speech.servicemaker.families import context, description, models
from riva_speech.servicemaker.families.graphs import (
    check_graph,
    export_graph,
    quiet,
)
from riva_speech.servicemaker.families.sharing import Destination, shared_weights
from riva_speech.text.vocabulary import VocabularyType

if TYPE_CHECKING:
    from collections.abc import Iterable

    from riva_speech.asr.pipeline import AcousticConfig
    from riva_speech.asr.streaming_config import AttentionContext, StreamingConfig
    from riva_speech.servicemaker.checkpoint import Checkpoint

OFFLINE_GRAPH = "model_graph.onnx"
SHARED_WEIGHTS = "model_weights.bin"
FEATURIZER = "featurizer.npz"
VOCABULARY = "vocabulary.txt"
# SentencePiece's own file, where the model has one: lexicons are spelt with it.
TOKENIZER = "tokenizer.model"


@dataclass(frozen=True)
class ExportOptions:
    """How to export: where to run, which opset, and the longest input in feature frames.

    With ``check`` the graphs are run and compared with the model. ``offline_context`` is how far
    whole utterances of a cache-aware model look, where that is not the checkpoint's first context.
    """

    device: str = "cpu"
    onnx_opset: int = 17
    max_frames: int | None = None
    check: bool = False
    offline_context: AttentionContext | None = None


@dataclass(frozen=True)
class Export:
    """What a checkpoint became: files by artefact name, and a description of the model."""

    files: dict[str, Path]
    acoustic: AcousticConfig
    summary: str


def streaming_graph_name(config: StreamingConfig, *, first: bool = False) -> str:
    """Return the artefact name of the graph for one look-ahead; ``first`` begins a stream."""
    left, right = config.att_context_size
    return f"model_graph_streaming_{left}_{right}{'_first' if first else ''}.onnx"


def export(checkpoint: Checkpoint, folder: Path, options: ExportOptions) -> Export:
    """Export a checkpoint's CTC head into ``folder``; the errors are those of ``restore``."""
    model = models.restore(checkpoint, device=options.device)
    description.limit_length(model, options.max_frames)
    if checkpoint.class_name in models.HYBRID_CLASSES:
        model.cur_decoder = "ctc"
    acoustic, vocabulary = description.describe(
        model, model.output_module.vocabulary, offline_context=options.offline_context
    )
    with shared_weights(folder / SHARED_WEIGHTS) as weights:
        to = Destination(weights, options.onnx_opset)
        graphs = list(export_graphs(model, model, acoustic, folder, to))
    vocabulary.save(folder / VOCABULARY)
    result = collect(checkpoint, model, acoustic, graphs)
    if options.check:
        check_graph(model, folder / OFFLINE_GRAPH, acoustic)
    return result


def collect(
    checkpoint: Checkpoint,
    model: Any,
    acoustic: AcousticConfig,
    graphs: list[Path],
) -> Export:
    """Add what all families have, features, tokenizer and shared weights, to their graphs."""
    folder = graphs[0].parent
    description.save_featurizer(model, folder / FEATURIZER)
    names = [FEATURIZER, VOCABULARY, SHARED_WEIGHTS, *(graph.name for graph in graphs)]
    summary = description.architecture(model, acoustic)
    files = {name: folder / name for name in names}
    if acoustic.vocabulary_type is VocabularyType.SENTENCEPIECE:
        files[TOKENIZER] = Path(models.tokenizer(checkpoint)["model_path"])
    return Export(files, acoustic, summary)


def export_graphs(
    model: Any,
    part: Any,
    acoustic: AcousticConfig,
    folder: Path,
    to: Destination,
) -> Iterable[Path]:
    """Export a part of a model, for whole utterances and then for each look-ahead."""
    from riva_speech.servicemaker.families import streaming as steps  # noqa: PLC0415 - needs torch
    from riva_speech.servicemaker.families.whole import lean  # noqa: PLC0415 - as above

    context.look(model.encoder, acoustic.offline_context)
    with lean(model.encoder):
        whole = export_graph(part, folder / OFFLINE_GRAPH, to)
    yield whole
    if not acoustic.streaming:
        return

    head = None if part is model.encoder else part.output_module
    model.set_export_config({"cache_support": "True"})
    for config in acoustic.streaming:
        first, following = (
            folder / streaming_graph_name(config, first=one) for one in (True, False)
        )
        context.look(model.encoder, config.att_context_size)
        if steps.is_supported(model.encoder):
            with quiet(following):
                steps.export_steps(model.encoder, head, config, (first, following), to)
        else:
            export_graph(part, following, to)
            # The number of steps to drop is a constant, and a stream begins with none.
            model.encoder.streaming_cfg.drop_extra_pre_encoded = 0
            export_graph(part, first, to)
        yield following
        yield first
    # As it was when the graph for whole utterances was made, which may yet be compared with it.
    context.look(model.encoder, acoustic.offline_context)
