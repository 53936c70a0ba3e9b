"""The engine against NeMo itself: the same checkpoint must give the same numbers and words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from riva_speech.asr.loading import load_recognizers
from riva_speech.asr.pipeline import EndpointingConfig
from riva_speech.asr.recognizer import OfflineRecognizer, StreamingRecognizer
from riva_speech.servicemaker import riva_build, riva_deploy
from riva_speech.servicemaker.nemo2riva import ConvertOptions, convert
from support.audio import babble
from support.checkpoints import ARCHITECTURES, save_checkpoint

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from riva_speech.asr.loading import Recognizer

pytestmark = pytest.mark.nemo

TOLERANCE = 1e-3
CACHE_AWARE = [name for name, one in ARCHITECTURES.items() if one.cache_aware]
NO_ENDPOINTING = EndpointingConfig(stop_history=0)
UTTERANCES = [babble(seconds, seed=seed) for seed, seconds in enumerate((0.7, 2.0, 3.21, 7.6))]


@dataclass
class Pair:
    """A checkpoint in NeMo, and the same deployed."""

    nemo: Any
    recognizers: list[Recognizer]

    def offline(self) -> OfflineRecognizer:
        return next(one for one in self.recognizers if isinstance(one, OfflineRecognizer))

    def streaming(self) -> list[StreamingRecognizer]:
        return [one for one in self.recognizers if isinstance(one, StreamingRecognizer)]


def deploy(checkpoint: Path, *, look_aheads: list[float]) -> list[Recognizer]:
    """Convert, build and deploy a checkpoint, for whole utterances and each look-ahead."""
    riva = checkpoint.with_suffix(".riva")
    convert(ConvertOptions(checkpoint, riva, None, force=True, device="cpu", onnx_opset=17))
    builds = {"offline": ["--offline"]}
    builds |= {f"streaming-{size:g}": [f"--chunk_size={size}"] for size in look_aheads}
    rmirs = []
    for name, options in builds.items():
        rmirs.append(str(checkpoint.with_name(f"{name}.rmir")))
        arguments = ["speech_recognition", rmirs[-1], str(riva), f"--name={name}", *options]
        riva_build.build(riva_build.parse(arguments))
    models = checkpoint.with_name("models")
    riva_deploy.deploy(riva_deploy.DeployOptions(tuple(rmirs), models, force=False, report=None))
    return load_recognizers(models)


def make_pair(checkpoint: Path) -> Pair:
    from nemo.collections.asr.models import ASRModel  # noqa: PLC0415 - optional

    model = ASRModel.restore_from(str(checkpoint), map_location="cpu").eval()
    model.preprocessor.featurizer.dither = 0.0
    model.preprocessor.featurizer.pad_to = 0
    cache_aware = model.encoder.att_context_style == "chunked_limited"
    sizes = model.encoder.att_context_size_all if cache_aware else []
    return Pair(model, deploy(checkpoint, look_aheads=[0.08 * (right + 1) for _, right in sizes]))


@pytest.fixture(scope="module", params=ARCHITECTURES)
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    folder = tmp_path_factory.mktemp(request.param)
    save_checkpoint(ARCHITECTURES[request.param], folder / "model.nemo")
    return make_pair(folder / "model.nemo")


def nemo_features(model: Any, samples: NDArray[np.float32]) -> NDArray[np.float32]:
    import torch  # noqa: PLC0415 - optional

    with torch.no_grad():
        features, length = model.preprocessor(
            input_signal=torch.from_numpy(samples)[None], length=torch.tensor([len(samples)])
        )
    result: NDArray[np.float32] = features[0, :, : int(length)].numpy()
    return result


def nemo_log_probs(model: Any, samples: NDArray[np.float32]) -> NDArray[np.float32]:
    import torch  # noqa: PLC0415 - optional

    with torch.no_grad():
        log_probs, length, _ = model(
            input_signal=torch.from_numpy(samples)[None],
            input_signal_length=torch.tensor([len(samples)]),
        )
    result: NDArray[np.float32] = log_probs[0, : int(length)].numpy()
    return result


def nemo_texts(model: Any, utterances: list[NDArray[np.float32]]) -> list[str]:
    hypotheses = model.transcribe(utterances, batch_size=1, verbose=False)
    model.eval()  # transcribe leaves parts of it in training
    return [" ".join(hypothesis.text.split()) for hypothesis in hypotheses]


def nemo_stream(
    model: Any, samples: NDArray[np.float32], right: int, *, pad: bool
) -> tuple[list[NDArray[np.float32]], str]:
    """Run NeMo's cache-aware streaming; return each step's log-probabilities, and the text."""
    import torch  # noqa: PLC0415 - optional
    from nemo.collections.asr.parts.utils.streaming_utils import (  # noqa: PLC0415
        CacheAwareStreamingAudioBuffer,
    )

    model.encoder.set_default_att_context_size([70, right])
    buffer = CacheAwareStreamingAudioBuffer(model, pad_and_drop_preencoded=pad)
    buffer.append_audio(samples)
    channel, time, length = model.encoder.get_initial_cache_state(batch_size=1)
    previous, steps, text = None, [], ""
    for number, (chunk, chunk_length) in enumerate(buffer):
        drop = model.encoder.streaming_cfg.drop_extra_pre_encoded if number or pad else 0
        with torch.inference_mode():
            before = 0 if previous is None else len(previous[0])
            previous, texts, channel, time, length, _, log_probs, total = (
                model.conformer_stream_step(
                    processed_signal=chunk,
                    processed_signal_length=chunk_length,
                    cache_last_channel=channel,
                    cache_last_time=time,
                    cache_last_channel_len=length,
                    keep_all_outputs=buffer.is_buffer_empty(),
                    previous_pred_out=previous,
                    drop_extra_pre_encoded=drop,
                    return_log_probs=True,
                )
            )
        steps.append(log_probs[0, : int(total[0]) - before].numpy())
        text = texts[0]
    model.encoder.set_default_att_context_size(list(model.encoder.att_context_size_all[0]))
    return steps, " ".join(getattr(text, "text", text).split())


@pytest.mark.parametrize("samples", UTTERANCES, ids=len)
def test_features_equal_nemo_s(pair: Pair, samples: NDArray[np.float32]) -> None:
    """The features are those of NeMo's preprocessor, frame for frame."""
    expected = nemo_features(pair.nemo, samples)

    features = pair.offline().log_mel(samples)

    np.testing.assert_allclose(features, expected, atol=TOLERANCE)


@pytest.mark.parametrize("samples", UTTERANCES, ids=len)
def test_offline_log_probabilities_equal_nemo_s(pair: Pair, samples: NDArray[np.float32]) -> None:
    """An offline pipeline's log-probabilities are NeMo's."""
    recognizer = pair.offline()

    log_probs = recognizer.log_probs(recognizer.log_mel(samples))

    np.testing.assert_allclose(log_probs, nemo_log_probs(pair.nemo, samples), atol=TOLERANCE)


def test_offline_texts_equal_transcribe(pair: Pair) -> None:
    """An offline pipeline hears the words that NeMo's transcribe hears."""
    texts = [pair.offline().recognize(samples).transcript for samples in UTTERANCES]

    assert texts == nemo_texts(pair.nemo, UTTERANCES)
    assert all(texts)


@pytest.mark.parametrize("pair", CACHE_AWARE, indirect=True)
@pytest.mark.parametrize("samples", UTTERANCES, ids=len)
def test_streamed_log_probabilities_equal_nemo_s(pair: Pair, samples: NDArray[np.float32]) -> None:
    """Each step of a stream gives the log-probabilities of NeMo's step on the same features."""
    for recognizer in pair.streaming():
        right = recognizer.config.streaming.att_context_size[1]
        expected, _ = nemo_stream(pair.nemo, samples, right, pad=True)
        # NeMo's simulation streams one frame more: a masked one at the end.
        features = np.pad(recognizer.log_mel(samples), ((0, 0), (0, 1)))
        state, size = recognizer.acoustic.start(), recognizer.config.streaming.chunk_frames

        steps = [
            recognizer.acoustic.step(state, features[:, begin : begin + size])
            for begin in range(0, features.shape[1], size)
        ]

        assert len(steps) >= len(expected)
        for ours, theirs in zip(steps, expected, strict=False):
            np.testing.assert_allclose(ours, theirs, atol=TOLERANCE)


@pytest.mark.parametrize("pair", CACHE_AWARE, indirect=True)
@pytest.mark.parametrize("samples", UTTERANCES, ids=len)
def test_streamed_texts_equal_nemo_s(pair: Pair, samples: NDArray[np.float32]) -> None:
    """A stream fed in uneven pieces gives the text of NeMo's cache-aware streaming."""
    for recognizer in pair.streaming():
        right = recognizer.config.streaming.att_context_size[1]
        _, expected = nemo_stream(pair.nemo, samples, right, pad=True)
        rng = np.random.default_rng(right)
        cuts = np.sort(rng.integers(0, len(samples), 20))
        stream = recognizer.start(NO_ENDPOINTING)

        for piece in np.split(samples, cuts):
            stream.accept(piece)

        assert stream.finish().transcript == expected
