"""Fixtures over the committed tiny model; NeMo is not needed for any of them."""

from __future__ import annotations

import time
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
import pytest
import riva.client
from riva.client.proto import riva_asr_pb2_grpc

from riva_speech.asr.loading import load_recognizers
from support.audio import babble, wav
from support.client import Request, streaming_config
from support.digits import ARCHIVE, SAMPLE
from support.programs import serving, succeed

if TYPE_CHECKING:
    from collections.abc import Iterator

    from riva_speech.asr.loading import Recognizer
    from support.client import Response

DATA = Path(__file__).parents[1] / "data"


@pytest.fixture(scope="session")
def tiny_riva() -> Path:
    return DATA / "tiny.riva"


@pytest.fixture(scope="session")
def tiny_rmir(tiny_riva: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An RMIR with two pipelines: tiny-streaming and tiny-offline."""
    rmir = tmp_path_factory.mktemp("rmir") / "tiny.rmir"
    both = ("--name=tiny", "--offline", "--streaming=True")
    succeed("riva-build", "speech_recognition", rmir, tiny_riva, *both)
    return rmir


@pytest.fixture(scope="session")
def tiny_repository(tiny_rmir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    repository = tmp_path_factory.mktemp("repository") / "models"
    succeed("riva-deploy", tiny_rmir, repository)
    return repository


@pytest.fixture(scope="session")
def digits_repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Models that know digits, for streams and for whole recordings."""
    repository = tmp_path_factory.mktemp("digits") / "models"
    succeed("riva-deploy", ARCHIVE, repository)
    return repository


@pytest.fixture(scope="session")
def digits_sample() -> Path:
    """A recording of ``four one seven two nine six``, 3.95 s long."""
    return SAMPLE


@pytest.fixture(scope="session")
def digits(digits_repository: Path) -> Iterator[str]:
    """The address of a server that knows digits, which all tests share."""
    with serving(digits_repository, quiet=True) as (address, _):
        yield address


@pytest.fixture
def digits_asr(digits: str) -> riva.client.ASRService:
    return riva.client.ASRService(riva.client.Auth(uri=digits))


@pytest.fixture(scope="session")
def uri(tiny_repository: Path) -> Iterator[str]:
    """The address of a server over the tiny models, which all tests share."""
    with serving(tiny_repository, quiet=True) as (address, _):
        yield address


@pytest.fixture
def asr(uri: str) -> riva.client.ASRService:
    return riva.client.ASRService(riva.client.Auth(uri=uri))


@pytest.fixture(scope="session")
def recognizers(tiny_repository: Path) -> dict[str, Recognizer]:
    """The pipelines of that server, online and offline, without it."""
    return {one.config.type: one for one in load_recognizers(tiny_repository)}


@pytest.fixture(scope="session")
def quiet(uri: str) -> Future[list[Response]]:
    """What is answered to a stream that says nothing for a minute, while other tests run."""
    audio = wav(babble(3.3))

    def messages() -> Iterator[Request]:
        yield Request(streaming_config=streaming_config())
        yield Request(audio_content=audio[: len(audio) // 2])
        time.sleep(61)
        yield Request(audio_content=audio[len(audio) // 2 :])

    def hear() -> list[Response]:
        with grpc.insecure_channel(uri) as channel:
            stub = riva_asr_pb2_grpc.RivaSpeechRecognitionStub(channel)
            return list(stub.StreamingRecognize(messages()))

    return ThreadPoolExecutor(1).submit(hear)


@pytest.fixture(scope="session", autouse=True)
def _quiet_begins_first(request: pytest.FixtureRequest) -> None:
    """The minute runs from the first test on, whichever that is, where it is waited for at all."""
    if any("a_minute_of_silence" in item.name for item in request.session.items):
        request.getfixturevalue("quiet")
