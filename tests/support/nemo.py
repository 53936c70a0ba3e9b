"""The same checkpoint in NeMo and in this project's engine, side by side."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from riva_speech.asr.loading import load_recognizers
from riva_speech.asr.offline import OfflineRecognizer
from riva_speech.asr.options import RequestOptions
from riva_speech.asr.pipeline import EndpointingConfig
from riva_speech.asr.streaming import StreamingRecognizer
from riva_speech.servicemaker import riva_build, riva_deploy
from riva_speech.servicemaker.conversion import ConvertOptions, convert

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from riva_speech.asr.loading import Recognizer
    from riva_speech.asr.streaming import Stream
    from riva_speech.asr.streaming_config import AttentionContext

# What deployed models are called in a test's folder.
MODELS = "models"
# The geometry of buffered streams, in seconds.
BUFFERED_CHUNK = 0.8
BUFFERED_PADDING = 1.6
NO_ENDPOINTING = RequestOptions(endpointing=EndpointingConfig(stop_history=0))


def hear_in_pieces(stream: Stream, samples: NDArray[np.float32], seed: int) -> str:
    """Send samples to a stream in uneven pieces; return what it has heard before its end."""
    rng = np.random.default_rng(seed)
    heard = ""
    for piece in np.split(samples, np.sort(rng.integers(0, len(samples), 20))):
        for result in stream.accept(piece):
            heard = result.transcript
    return heard


@dataclass
class Pair:
    """A checkpoint in NeMo, and the same deployed into a repository."""

    nemo: Any
    repository: Path
    recognizers: list[Recognizer]

    def offline(self) -> OfflineRecognizer:
        """Return the pipeline for whole utterances."""
        return next(one for one in self.recognizers if isinstance(one, OfflineRecognizer))

    def streaming(self) -> list[StreamingRecognizer]:
        """Return the pipelines for streams, one a look-ahead."""
        return [one for one in self.recognizers if isinstance(one, StreamingRecognizer)]


def deploy(
    checkpoint: Path,
    folder: Path,
    *,
    look_aheads: list[float],
    options: tuple[str, ...] = (),
    head: str | None = None,
    offline_context: AttentionContext | None = None,
) -> list[Recognizer]:
    """Convert, build and deploy a checkpoint, for whole utterances and each look-ahead.

    A model without look-aheads is deployed for buffered streams.
    """
    riva = folder / "model.riva"
    convert(
        ConvertOptions(
            checkpoint,
            riva,
            None,
            force=True,
            device="cpu",
            onnx_opset=17,
            decoder=head,
            runtime_check=offline_context is not None,
            offline_context=offline_context,
        )
    )
    builds = {"offline": ["--offline"]}
    builds |= {f"streaming-{size:g}": [f"--chunk_size={size}"] for size in look_aheads}
    if not look_aheads:
        sizes = [f"--chunk_size={BUFFERED_CHUNK}", f"--padding_size={BUFFERED_PADDING}"]
        builds["streaming-buffered"] = sizes
    rmirs = []
    for name, chunk in builds.items():
        rmirs.append(str(folder / f"{name}.rmir"))
        arguments = ["speech_recognition", rmirs[-1], str(riva), f"--name={name}", *chunk, *options]
        riva_build.build(riva_build.parse(arguments))
    models = folder / MODELS
    riva_deploy.deploy(riva_deploy.DeployOptions(tuple(rmirs), models, force=False, report=None))
    return load_recognizers(models)


def restored(checkpoint: Path) -> Any:
    """Return a checkpoint in NeMo, hearing each sample as it is: no dither, no padding."""
    from nemo.collections.asr.models import ASRModel

    model = ASRModel.restore_from(str(checkpoint), map_location="cpu").eval()
    model.preprocessor.featurizer.dither = 0.0
    model.preprocessor.featurizer.pad_to = 0
    return model


def make_pair(
    checkpoint: Path, folder: Path, options: tuple[str, ...] = (), head: str | None = None
) -> Pair:
    """Load a checkpoint into NeMo, and deploy it with every look-ahead that it has.

    ``options`` are riva-build's; of a hybrid the ``head`` is taken: ctc or rnnt.
    """
    model = restored(checkpoint)
    cache_aware = getattr(model.encoder, "att_context_style", "") == "chunked_limited"
    sizes = model.encoder.att_context_size_all if cache_aware else []
    if hasattr(model, "ctc_decoder"):
        model.change_decoding_strategy(decoder_type="ctc" if head == "ctc" else "rnnt")
    step = 0.01 * model.encoder.subsampling_factor
    look_aheads = [step * (right + 1) for _, right in sizes]
    recognizers = deploy(checkpoint, folder, look_aheads=look_aheads, options=options, head=head)
    return Pair(model, folder / MODELS, recognizers)


def is_transducer(model: Any) -> bool:
    """Whether a model in NeMo decodes with a transducer head."""
    return getattr(model, "cur_decoder", "rnnt") == "rnnt" and hasattr(model, "joint")


def nemo_features(model: Any, samples: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the features of NeMo's preprocessor, [n_mels, frames]."""
    import torch

    with torch.no_grad():
        features, length = model.preprocessor(
            input_signal=torch.from_numpy(samples)[None], length=torch.tensor([len(samples)])
        )
    result: NDArray[np.float32] = features[0, :, : int(length)].numpy()
    return result


def nemo_log_probs(model: Any, samples: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return NeMo's log-probabilities for a whole utterance, [steps, tokens + 1]."""
    import torch

    with torch.no_grad():
        log_probs = getattr(model, "ctc_decoder", model.decoder)(
            encoder_output=_encoded(model, samples)
        )
    result: NDArray[np.float32] = log_probs[0].numpy()
    return result


def nemo_encoded(model: Any, samples: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the steps of NeMo's encoder for a whole utterance, [steps, width]."""
    result: NDArray[np.float32] = _encoded(model, samples)[0].T.numpy()
    return result


def _encoded(model: Any, samples: NDArray[np.float32]) -> Any:
    import torch

    with torch.no_grad():
        features, length = model.preprocessor(
            input_signal=torch.from_numpy(samples)[None], length=torch.tensor([len(samples)])
        )
        encoded, length = model.encoder(audio_signal=features, length=length)
    return encoded[:, :, : int(length)]


def nemo_texts(model: Any, utterances: list[NDArray[np.float32]], folder: Path) -> list[str]:
    """Return what NeMo's transcribe hears in files; arrays it would pad, and files it does not."""
    import soundfile

    paths = [folder / f"{number}.wav" for number in range(len(utterances))]
    for path, samples in zip(paths, utterances, strict=True):
        soundfile.write(path, samples, 16000, subtype="FLOAT")
    try:
        hypotheses = model.transcribe(list(map(str, paths)), batch_size=1, verbose=False)
    finally:
        model.eval()  # transcribe leaves parts of it in training
    return [" ".join(hypothesis.text.split()) for hypothesis in hypotheses]


def as_nemo_writes(text: str) -> str:
    """Return a text without the spaces before punctuation, which NeMo takes out."""
    return text.replace(" '", "'")


def nemo_buffered_text(
    model: Any, samples: NDArray[np.float32], *, chunk: float, padding: float
) -> str:
    """Run NeMo's buffered streaming of a CTC model; return what it heard."""
    import torch
    from nemo.collections.asr.parts.utils.streaming_utils import (
        AudioFeatureIterator,
        FrameBatchASR,
    )

    stride = 0.01 * model.encoder.subsampling_factor
    buffered = FrameBatchASR(model, frame_len=chunk, total_buffer=chunk + 2 * padding, batch_size=1)
    delay = round((chunk + padding) / stride)
    padded = np.pad(samples, (0, int(delay * stride * 16000)))
    reader = AudioFeatureIterator(padded, chunk, buffered.raw_preprocessor, torch.device("cpu"))
    buffered.set_frame_reader(reader)
    return " ".join(buffered.transcribe(round(chunk / stride), delay).split())


def nemo_buffered_transducer_text(
    model: Any, samples: NDArray[np.float32], *, chunk: float, padding: float
) -> str:
    """Run NeMo's buffers and encoder, and its greedy search over the steps that are kept.

    The steps are those whose tokens NeMo's BatchedFrameASRRNNT keeps of each buffer. That class
    searches every buffer from its beginning; here the search goes on from one to the next, as in
    NeMo's newer streaming of transducers.
    """
    import torch
    from nemo.collections.asr.parts.utils.streaming_utils import (
        AudioFeatureIterator,
        BatchedFrameASRRNNT,
    )

    stride = 0.01 * model.encoder.subsampling_factor
    size, delay = round(chunk / stride), round((chunk + padding) / stride)
    streaming = BatchedFrameASRRNNT(
        model, frame_len=chunk, total_buffer=chunk + 2 * padding, batch_size=1
    )
    padded = np.pad(samples, (0, int(delay * stride * 16000)))
    reader = AudioFeatureIterator(padded, chunk, streaming.raw_preprocessor, torch.device("cpu"))
    streaming.set_frame_reader(reader, 0)
    kept = []
    with torch.no_grad():
        while buffers := streaming.frame_bufferer.get_buffers_batch():
            features = torch.from_numpy(np.array(buffers[0], np.float32))
            encoded, length = model.encoder(
                audio_signal=features, length=torch.tensor([features.shape[2]])
            )
            begin = int(length) - 1 - delay
            kept.append(encoded[:, :, begin : begin + size])
        steps = torch.cat(kept, 2)
        (hypothesis,) = model.decoding.rnnt_decoder_predictions_tensor(
            steps, torch.tensor([steps.shape[2]]), return_hypotheses=True
        )
    return " ".join(hypothesis.text.split())


def nemo_stream(
    model: Any, samples: NDArray[np.float32], right: int
) -> tuple[list[NDArray[np.float32]], str]:
    """Run NeMo's cache-aware streaming; return each step's log-probabilities, and the text.

    A transducer gives no log-probabilities.
    """
    import torch
    from nemo.collections.asr.parts.utils.streaming_utils import (
        CacheAwareStreamingAudioBuffer,
    )

    model.encoder.set_default_att_context_size([70, right])
    buffer = CacheAwareStreamingAudioBuffer(model)
    buffer.append_audio(samples)
    channel, time, length = model.encoder.get_initial_cache_state(batch_size=1)
    previous, hypotheses, steps, text = None, None, [], ""
    for number, (chunk, chunk_length) in enumerate(buffer):
        drop = model.encoder.streaming_cfg.drop_extra_pre_encoded if number else 0
        with torch.inference_mode():
            before = 0 if previous is None else len(previous[0])
            previous, texts, channel, time, length, hypotheses, *rest = model.conformer_stream_step(
                processed_signal=chunk,
                processed_signal_length=chunk_length,
                cache_last_channel=channel,
                cache_last_time=time,
                cache_last_channel_len=length,
                keep_all_outputs=buffer.is_buffer_empty(),
                previous_hypotheses=hypotheses,
                previous_pred_out=previous,
                drop_extra_pre_encoded=drop,
                return_log_probs=not is_transducer(model),
            )
        if rest:
            log_probs, total = rest
            steps.append(log_probs[0, : int(total[0]) - before].numpy())
        text = texts[0]
    model.encoder.set_default_att_context_size(list(model.encoder.att_context_size_all[0]))
    return steps, " ".join(getattr(text, "text", text).split())
