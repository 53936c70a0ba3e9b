"""Models with a transducer head: RNN-T and TDT, alone or in a hybrid.

They become an encoder, as CTC models do, and one graph of prediction network and joint, which
the greedy search runs over a window of encoder steps at a time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from riva_speech.asr.pipeline import TransducerConfig
from riva_speech.errors import UnsupportedError
from riva_speech.servicemaker.families import ctc, description, models
from riva_speech.servicemaker.families.graphs import check_graph, export_rearranged
from riva_speech.servicemaker.families.sharing import Destination, shared_weights

if TYPE_CHECKING:
    from pathlib import Path

    from riva_speech.servicemaker.checkpoint import Checkpoint

DECODER_JOINT_GRAPH = "model_graph_decoder_joint.onnx"


def export(checkpoint: Checkpoint, folder: Path, options: ctc.ExportOptions) -> ctc.Export:
    """Export a checkpoint's transducer head into ``folder``.

    Raises:
        UnsupportedError: The checkpoint is of another architecture.
        UsageError: The model cannot have the context asked for.
        DamagedArchiveError: Its weights do not load, or do not fit its configuration.
    """
    model = models.restore(checkpoint, device=options.device)
    description.limit_length(model, options.max_frames)
    transducer = _describe(model, checkpoint)
    acoustic, vocabulary = description.describe(
        model, model.joint.vocabulary, transducer, offline_context=options.offline_context
    )
    part = model.encoder
    with shared_weights(folder / ctc.SHARED_WEIGHTS) as weights:
        to = Destination(weights, options.onnx_opset)
        graphs = list(ctc.export_graphs(model, part, acoustic, folder, to))
        graphs.append(export_rearranged(model.decoder_joint, folder / DECODER_JOINT_GRAPH, to))
    vocabulary.save(folder / ctc.VOCABULARY)
    result = ctc.collect(checkpoint, model, acoustic, graphs)
    if options.check:
        check_graph(part, folder / ctc.OFFLINE_GRAPH, acoustic)
    return result


def _describe(model: Any, checkpoint: Checkpoint) -> TransducerConfig:
    durations = models.durations(checkpoint)
    if model.joint.num_extra_outputs != len(durations):
        raise UnsupportedError(
            f"the joint network of {checkpoint.source} has {model.joint.num_extra_outputs} outputs "
            f"beside its tokens, and its loss explains {len(durations)}"
        )
    prediction = model.decoder
    return TransducerConfig(
        durations=durations,
        max_symbols=models.max_symbols(checkpoint),
        encoder_width=int(model.joint.encoder_hidden),
        state_shape=(int(prediction.pred_rnn_layers), int(prediction.pred_hidden)),
    )
