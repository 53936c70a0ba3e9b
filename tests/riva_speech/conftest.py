"""Fixtures over the committed tiny model; NeMo is not needed for any of them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import riva.client

from riva_speech.asr.loading import load_recognizers
from support.programs import serving, succeed

if TYPE_CHECKING:
    from collections.abc import Iterator

    from riva_speech.asr.loading import Recognizer

DATA = Path(__file__).parents[1] / "data"
QUICKSTART = Path(__file__).parents[2] / "quickstart"


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
    succeed("riva-deploy", QUICKSTART / "artifacts" / "asr_digits_en_us.rmir", repository)
    return repository


@pytest.fixture(scope="session")
def digits_sample() -> Path:
    """A recording of ``four one seven two nine six``, 3.95 s long."""
    return QUICKSTART / "samples" / "en-US_sample.wav"


@pytest.fixture(scope="session")
def uri(tiny_repository: Path) -> Iterator[str]:
    """The address of a server over the tiny models, which all tests share."""
    with serving(tiny_repository) as (address, _):
        yield address


@pytest.fixture
def asr(uri: str) -> riva.client.ASRService:
    return riva.client.ASRService(riva.client.Auth(uri=uri))


@pytest.fixture(scope="session")
def recognizers(tiny_repository: Path) -> dict[str, Recognizer]:
    """The pipelines of that server, online and offline, without it."""
    return {one.config.type: one for one in load_recognizers(tiny_repository)}
