"""What goes into the models of a pipeline, and what comes out: names, types and shapes."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, TypeAlias

from riva_speech.repository import Tensor

if TYPE_CHECKING:
    from collections.abc import Mapping

    from riva_speech.asr.pipeline import AcousticConfig, PipelineConfig

Tensors: TypeAlias = tuple[Tensor, ...]

# Those of a whole pipeline: sound in, words out.
PIPELINE_INPUTS: Tensors = (
    Tensor("AUDIO_SIGNAL", "FP32", (-1,)),
    Tensor("SAMPLE_RATE", "UINT32", (1,)),
    Tensor("END_FLAG", "UINT32", (1,)),
)
PIPELINE_OUTPUTS: Tensors = (
    Tensor("FINAL_TRANSCRIPTS", "STRING", (-1,)),
    Tensor("FINAL_TRANSCRIPTS_SCORE", "FP32", (-1,)),
    Tensor("FINAL_WORDS_START_END", "INT32", (-1, 2)),
    Tensor("PARTIAL_TRANSCRIPTS", "STRING", (-1,)),
    Tensor("PARTIAL_WORDS_START_END", "INT32", (-1, 2)),
    Tensor("AUDIO_PROCESSED", "FP32", (1,)),
)


def graph_tensors(pipeline: PipelineConfig, outcomes: int) -> tuple[Tensors, Tensors]:
    """Return the inputs and outputs of NeMo's exported graphs.

    ``outcomes`` is the number of tokens, the blank among them.
    """
    n_mels = pipeline.acoustic.features.n_mels
    inputs = [
        Tensor("audio_signal", "FP32", (n_mels, -1)),
        Tensor("length", "INT64", (1,), per_entry=True),
    ]
    outputs = [Tensor("logprobs", "FP32", (-1, outcomes))]
    lengths = Tensor("encoded_lengths", "INT64", (1,), per_entry=True)
    if config := pipeline.acoustic.transducer:
        outputs = [Tensor("outputs", "FP32", (config.encoder_width, -1))]
    if not pipeline.acoustic.streaming:
        outputs += [lengths] if config else []
        return tuple(inputs), tuple(outputs)
    streaming = pipeline.streaming
    outputs.append(lengths)
    for cache in streaming.caches:
        added = tuple(
            -1 if axis == cache.append_axis else size for axis, size in enumerate(cache.shape)
        )
        inputs += [Tensor(name, "FP32", shape) for name, shape in cache.inputs.items()]
        outputs.append(Tensor(cache.next_name, "FP32", added))
    inputs.append(Tensor("cache_last_channel_len", "INT64", (1,), per_entry=True))
    outputs.append(Tensor("cache_last_channel_next_len", "INT64", (1,), per_entry=True))
    return tuple(inputs), tuple(outputs)


def decoder_joint_tensors(acoustic: AcousticConfig, outcomes: int) -> tuple[Tensors, Tensors]:
    """Return the inputs and outputs of a transducer's second graph; all have their batch.

    The batch is not the first dimension of its states, so Triton leaves batches to the caller.
    """
    config = acoustic.transducer
    assert config is not None  # only transducers have this graph
    layers, width = config.state_shape
    inputs = (
        Tensor("encoder_outputs", "FP32", (-1, config.encoder_width, -1)),
        Tensor("targets", "INT32", (-1, -1)),
        Tensor("target_length", "INT32", (-1,)),
        Tensor("input_states_1", "FP32", (layers, -1, width)),
        Tensor("input_states_2", "FP32", (layers, -1, width)),
    )
    outputs = (
        Tensor("outputs", "FP32", (-1, -1, -1, outcomes + len(config.durations))),
        Tensor("prednet_lengths", "INT32", (-1,)),
        Tensor("output_states_1", "FP32", (layers, -1, width)),
        Tensor("output_states_2", "FP32", (layers, -1, width)),
    )
    return inputs, outputs


def fitted(tensors: Tensors, shapes: Mapping[str, tuple[int, ...]], *, skip: int) -> Tensors:
    """Return tensors with the sizes that a graph fixes in place of any.

    Args:
        tensors: What is known of them without the graph.
        shapes: The graph's own shapes, -1 for any size; tensors that it lacks stay as they are.
        skip: How many first dimensions of these are left out: 1 where that is the batch, else 0.
    """
    return tuple(_fitted(tensor, shapes.get(tensor.name, ())[skip:]) for tensor in tensors)


def _fitted(tensor: Tensor, sizes: tuple[int, ...]) -> Tensor:
    if tensor.per_entry or len(sizes) != len(tensor.dims):
        return tensor
    dims = (size if one == -1 else one for one, size in zip(tensor.dims, sizes, strict=True))
    return replace(tensor, dims=tuple(dims))
