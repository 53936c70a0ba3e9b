"""A deployed repository in the real Triton server, asked by Triton's own client."""

from __future__ import annotations

import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from riva_speech.asr.loading import load_recognizers
from riva_speech.audio.stream import DeclaredFormat, decode_all
from riva_speech.repository import list_models
from support.audio import babble
from support.checkpoints import TRANSDUCERS, save_checkpoint
from support.digits import ARCHIVE, SAID, SAMPLE
from support.programs import succeed
from support.triton_server import triton

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

pytestmark = pytest.mark.triton

RATE = 16000
OUTPUTS = (
    "FINAL_TRANSCRIPTS",
    "FINAL_TRANSCRIPTS_SCORE",
    "FINAL_WORDS_START_END",
    "PARTIAL_TRANSCRIPTS",
    "PARTIAL_WORDS_START_END",
    "AUDIO_PROCESSED",
)


@dataclass(frozen=True)
class Service:
    """A running Triton over a repository that has been moved since it was deployed."""

    client: Any
    repository: Path

    def named(self, ending: str) -> str:
        (name,) = (one for one in list_models(self.repository) if one.endswith(ending))
        return name

    def ask(
        self, model: str, samples: NDArray[np.float32], *, rate: int = RATE, **sequence: Any
    ) -> dict[str, Any]:
        from tritonclient import grpc  # noqa: PLC0415 - optional

        tensors = {
            "AUDIO_SIGNAL": samples[np.newaxis],
            "SAMPLE_RATE": np.array([[rate]], np.uint32),
            "END_FLAG": np.zeros((1, 1), np.uint32),
        }
        kinds = {"AUDIO_SIGNAL": "FP32", "SAMPLE_RATE": "UINT32", "END_FLAG": "UINT32"}
        inputs = []
        for name, values in tensors.items():
            inputs.append(grpc.InferInput(name, values.shape, kinds[name]))
            inputs[-1].set_data_from_numpy(values)
        result = self.client.infer(model, inputs, **sequence)
        return {name: result.as_numpy(name)[0] for name in OUTPUTS}


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("triton")
    succeed("riva-deploy", "--triton_backend=python", ARCHIVE, folder / "deployed")
    moved = folder / "elsewhere" / "models"
    moved.parent.mkdir()
    shutil.move(folder / "deployed", moved)
    with triton(moved, folder) as client:
        yield Service(client, moved)


@pytest.fixture(scope="module")
def samples() -> NDArray[np.float32]:
    return decode_all(SAMPLE.read_bytes(), DeclaredFormat(), RATE)


def texts(answer: dict[str, Any], kind: str = "FINAL") -> list[str]:
    return [text.decode() for text in answer[f"{kind}_TRANSCRIPTS"]]


def stream(service: Service, samples: NDArray[np.float32], number: int) -> list[dict[str, Any]]:
    """Send samples in pieces of two tenths of a second."""
    pieces = np.split(samples, range(RATE // 5, len(samples), RATE // 5))
    last = len(pieces) - 1
    return [
        service.ask(
            service.named("streaming-asr-bls-ensemble"),
            piece,
            sequence_id=number,
            sequence_start=position == 0,
            sequence_end=position == last,
        )
        for position, piece in enumerate(pieces)
    ]


def test_every_model_is_ready(service: Service) -> None:
    """Triton loads each folder of the repository, wherever it lies."""
    names = list_models(service.repository)

    assert names
    assert all(service.client.is_model_ready(name) for name in names)


def test_a_recording_gives_our_server_s_words(
    service: Service, samples: NDArray[np.float32]
) -> None:
    """Words, times and confidence are those that the same repository gives without Triton."""
    (ours,) = (
        one.recognize(samples)
        for one in load_recognizers(service.repository)
        if one.config.type == "offline"
    )

    answer = service.ask(service.named("offline-asr-bls-ensemble"), samples)

    assert texts(answer) == [SAID] == [ours.transcript]
    times = [(word.start_ms, word.end_ms) for word in ours.words]
    assert answer["FINAL_WORDS_START_END"].tolist() == list(map(list, times))
    np.testing.assert_allclose(answer["FINAL_TRANSCRIPTS_SCORE"], [ours.confidence], rtol=1e-4)
    np.testing.assert_allclose(answer["AUDIO_PROCESSED"], [len(samples) / RATE], rtol=1e-4)


def test_a_stream_is_heard_as_it_comes(service: Service, samples: NDArray[np.float32]) -> None:
    """Interim words grow into the final ones, with their times."""
    answers = stream(service, samples, number=1)

    interim = [text for answer in answers for text in texts(answer, "PARTIAL")]
    final = [text for answer in answers for text in texts(answer)]
    assert " ".join(final).split() == SAID.split()
    assert any(SAID.startswith(text) for text in interim if text)
    assert sum(len(answer["FINAL_WORDS_START_END"]) for answer in answers) == 6


def test_streams_do_not_hear_each_other(service: Service, samples: NDArray[np.float32]) -> None:
    """Two streams whose requests alternate have the words that each has alone."""
    name = service.named("streaming-asr-bls-ensemble")
    silence = np.zeros_like(samples)
    heard: dict[int, list[str]] = {7: [], 8: []}
    half = len(samples) // 2
    for part in range(2):
        for number, sound in ((7, samples), (8, silence)):
            piece = sound[part * half : (part + 1) * half if not part else None]
            answer = service.ask(
                name, piece, sequence_id=number, sequence_start=not part, sequence_end=bool(part)
            )
            heard[number] += " ".join(texts(answer)).split()

    assert heard == {7: SAID.split(), 8: []}


def runs(service: Service, model: str) -> tuple[int, int]:
    """Return how many requests Triton has answered, and in how many runs."""
    (told,) = service.client.get_inference_statistics(model).model_stats
    return told.inference_count, told.execution_count


@pytest.mark.parametrize(
    ("pipeline", "graph"),
    [
        ("offline-asr-bls-ensemble", "am-streaming-offline"),
        ("streaming-asr-bls-ensemble", "am-streaming"),
    ],
)
def test_requests_of_several_clients_share_runs(
    service: Service, samples: NDArray[np.float32], pipeline: str, graph: str
) -> None:
    """Clients that ask at once are answered in fewer runs of pipeline and graph, each rightly."""
    names = [service.named(pipeline), service.named(graph)]
    before = [runs(service, name) for name in names]
    clients = 6

    def hear(number: int) -> list[str]:
        if pipeline.startswith("offline"):
            return texts(service.ask(names[0], samples))
        return [text for answer in stream(service, samples, number) for text in texts(answer)]

    for attempt in range(10):
        numbers = range(100 * (attempt + 1), 100 * (attempt + 1) + clients)
        with ThreadPoolExecutor(clients) as pool:
            heard = list(pool.map(hear, numbers))
        assert [" ".join(one).split() for one in heard] == [SAID.split()] * clients
        now = [runs(service, name) for name in names]
        joined = [
            made - had < asked - told
            for (asked, made), (told, had) in zip(now, before, strict=True)
        ]
        if all(joined):  # a slow machine may send one request after the other
            break

    assert joined == [True, True]


def test_two_recordings_in_one_request_are_refused(
    service: Service, samples: NDArray[np.float32]
) -> None:
    """Their words would differ in number, which one tensor cannot hold; the error says so."""
    from tritonclient import grpc  # noqa: PLC0415 - optional
    from tritonclient.utils import InferenceServerException  # noqa: PLC0415 - optional

    tensors = {
        "AUDIO_SIGNAL": (np.stack([samples, samples]), "FP32"),
        "SAMPLE_RATE": (np.full((2, 1), RATE, np.uint32), "UINT32"),
        "END_FLAG": (np.zeros((2, 1), np.uint32), "UINT32"),
    }
    inputs = []
    for name, (values, kind) in tensors.items():
        inputs.append(grpc.InferInput(name, values.shape, kind))
        inputs[-1].set_data_from_numpy(values)

    with pytest.raises(InferenceServerException, match="send one a request"):
        service.client.infer(service.named("offline-asr-bls-ensemble"), inputs)


def test_another_sample_rate_is_refused(service: Service, samples: NDArray[np.float32]) -> None:
    """The error names both rates, and the server goes on."""
    from tritonclient.utils import InferenceServerException  # noqa: PLC0415 - optional

    name = service.named("offline-asr-bls-ensemble")
    with pytest.raises(InferenceServerException, match=r"SAMPLE_RATE is 8000, .* takes 16000"):
        service.ask(name, samples, rate=8000)

    assert texts(service.ask(name, samples)) == [SAID]


@pytest.mark.nemo
def test_transducers_are_heard_too(tmp_path: Path) -> None:
    """Their second graph is a model of Triton as well, and the words are those without Triton."""
    checkpoint, riva, rmir = (tmp_path / f"model.{kind}" for kind in ("nemo", "riva", "rmir"))
    save_checkpoint(TRANSDUCERS["rnnt-streaming-bpe"], checkpoint)
    succeed("nemo2riva", checkpoint, "--out", riva)
    both = ("--name=rnnt", "--offline", "--streaming=True", "--decoder_type=nemo")
    succeed("riva-build", "speech_recognition", rmir, riva, *both)
    succeed("riva-deploy", "--triton_backend=python", rmir, tmp_path / "models")
    samples = babble(4)
    ours = {
        one.config.type: one.recognize(samples) for one in load_recognizers(tmp_path / "models")
    }

    with triton(tmp_path / "models", tmp_path) as client:
        service = Service(client, tmp_path / "models")
        whole = service.ask(service.named("offline-asr-bls-ensemble"), samples)
        answers = stream(service, samples, number=1)

    assert len(service.named("streaming-decoder-joint")) > 0
    assert texts(whole) == [ours["offline"].transcript] != [""]
    heard = " ".join(text for answer in answers for text in texts(answer))
    assert heard.split() == ours["online"].transcript.split()
