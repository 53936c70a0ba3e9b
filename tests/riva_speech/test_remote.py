"""Acoustic models that a real Triton runs, for a server that does all else."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import numpy as np
import pytest

from riva_speech import repository
from riva_speech.asr.loading import load_recognizers
from riva_speech.asr.offline import OfflineRecognizer
from riva_speech.batching import UnavailableError
from riva_speech.errors import NotReadyError, UnsupportedError
from riva_speech.sessions.opening import opener
from riva_speech.sessions.remote import RemoteSession
from support.heard import SIGNALS, heard
from support.ports import free_port
from support.programs import run, serving, succeed
from support.triton_server import triton

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(scope="module")
def models(tiny_rmir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("remote") / "models"
    succeed("riva-deploy", "--triton_backend=python", tiny_rmir, folder)
    return folder


@pytest.fixture(scope="module")
def uri(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    port = free_port()
    with triton(models, tmp_path_factory.mktemp("triton"), port):
        yield f"127.0.0.1:{port}"


@pytest.mark.triton
def test_words_and_times_are_those_of_local_models(models: Path, uri: str) -> None:
    """Whole utterances and streams give the same, wherever the acoustic model runs."""
    local = load_recognizers(models)
    remote = load_recognizers(models, open_session=opener(triton_uri=uri))

    assert heard(remote) == heard(local)


@pytest.mark.triton
def test_a_batch_is_cut_into_what_triton_takes(models: Path, uri: str) -> None:
    """Utterances of one run come back as each comes alone, whatever batch Triton allows."""
    recognizers = load_recognizers(models, open_session=opener(triton_uri=uri))
    offline = next(one for one in recognizers if isinstance(one, OfflineRecognizer))
    offline.learn_to_join()
    windows = [offline.log_mel(signal) for signal in SIGNALS]

    together = offline.run(windows)

    for steps, window in zip(together, windows, strict=True):
        np.testing.assert_allclose(steps, offline.acoustic(window), atol=1e-3)


@pytest.mark.triton
def test_a_server_over_a_triton_answers(models: Path, uri: str) -> None:
    """start-riva --triton-uri serves recordings, and says UNAVAILABLE of nothing."""
    import riva.client  # noqa: PLC0415 - this test alone

    from support.audio import wav  # noqa: PLC0415 - this test alone

    expected = heard(load_recognizers(models))["tiny-offline"]
    with serving(models, f"--triton-uri={uri}") as (address, _):
        asr = riva.client.ASRService(riva.client.Auth(uri=address))
        config = riva.client.RecognitionConfig(language_code="en-US", max_alternatives=1)
        texts = [
            asr.offline_recognize(wav(signal), config).results[0].alternatives for signal in SIGNALS
        ]

    found = [one[0].transcript.split() if one else [] for one in texts]
    assert found == [[word for word, *_ in words] for words in expected]


@pytest.mark.triton
def test_other_models_than_ours_are_refused(
    models: Path, uri: str, tmp_path: Path, tiny_rmir: Path
) -> None:
    """A model that Triton has not, or has differently, is named before anything is served."""
    succeed("riva-deploy", tiny_rmir, tmp_path / "models")
    folder = next((tmp_path / "models").glob("*-am-*offline"))
    config = (models / folder.name / "config.pbtxt").read_text()
    (folder / "config.pbtxt").write_text(re.sub(r'"length"', '"lengths"', config))
    renamed = folder.parent / "unheard-of"
    open_session = opener(triton_uri=uri)

    with pytest.raises(UnsupportedError, match=rf"serves another {folder.name} than"):
        open_session(folder)
    folder.rename(renamed)
    (renamed / "config.pbtxt").write_text(config.replace(folder.name, "unheard-of"))
    assert repository.read_config(renamed).name == "unheard-of"
    with pytest.raises(NotReadyError, match="does not serve unheard-of"):
        open_session(renamed)


def test_a_triton_that_says_nothing_is_unavailable(tiny_repository: Path) -> None:
    """A run whose answer never comes is one of a Triton that is away, and no fault of ours."""

    class Silent:
        def async_infer(self, *_: object, **__: object) -> None:
            """Take a request, and never call back."""

    config = repository.read_config(next(tiny_repository.glob("*-am-*offline")))
    session = RemoteSession(Silent(), config, patience=0.1)
    inputs = {
        one.name: np.zeros((1, *(abs(size) for size in one.dims)), np.float32)
        for one in config.inputs
    }

    with pytest.raises(UnavailableError, match="no answer in"):
        session.run(inputs)


def test_a_triton_that_is_away_is_exit_6(tiny_repository: Path) -> None:
    """The address is named, and what to check."""
    uri = f"127.0.0.1:{free_port()}"

    done = run(
        "start-riva",
        "--riva-uri=127.0.0.1:0",
        f"--model_repository={tiny_repository}",
        f"--triton-uri={uri}",
    )

    assert done.returncode == 6, done.stderr
    assert f"error: there is no Triton at {uri}" in done.stderr
    assert "hint: start it, or check --triton-uri" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.triton
def test_a_triton_that_goes_away_is_unavailable(models: Path, tmp_path: Path) -> None:
    """A run fails at once with what cannot be run, and is worth no second try."""
    port = free_port()
    with triton(models, tmp_path, port):
        recognizers = load_recognizers(models, open_session=opener(triton_uri=f"127.0.0.1:{port}"))
        assert heard(recognizers)

    with pytest.raises(UnavailableError, match="Triton, riva-onnx-tiny"):
        recognizers[0].recognize(SIGNALS[0])
