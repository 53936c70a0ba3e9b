"""Engines of TensorRT on a GPU: deployed, verified and served, with a stand-in for the library."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import riva.client

from riva_speech import repository
from riva_speech.asr.loading import load_recognizers
from riva_speech.asr.offline import OfflineRecognizer
from support.client import offline_text, streamed_text
from support.digits import ARCHIVE, SAID, SAMPLE
from support.gpu_at_hand import CAPABILITY, gpu_at_hand
from support.heard import SIGNALS, heard
from support.programs import run, serving, succeed

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


LIBRARIES = ("tensorrt", "tensorrt_rtx")
FAULT = "STAND_IN_FAULT"


@pytest.fixture(scope="module", autouse=True)
def _gpu() -> Iterator[None]:
    with gpu_at_hand():
        yield


@pytest.fixture(scope="module")
def digits_engines(tmp_path_factory: pytest.TempPathFactory) -> Path:
    models = tmp_path_factory.mktemp("digits") / "models"
    succeed("riva-deploy", "--runtime=tensorrt", ARCHIVE, models)
    return models


def entries(report: Path) -> list[dict[str, Any]]:
    """Return what a deploy reports of acoustic models."""
    models = json.loads(report.read_text())["models"]
    found = [entry for model in models for entry in model["deployment"]]
    return [entry for entry in found if "largest_difference" in entry]


@pytest.mark.parametrize("library", LIBRARIES)
def test_engines_are_verified_by_running_them(
    tmp_path: Path, tiny_rmir: Path, library: str
) -> None:
    """Where the GPU that they are for is at hand, nothing has to be allowed; no bits are lost."""
    report, models = tmp_path / "report.json", tmp_path / "models"

    succeed("riva-deploy", f"--runtime={library}", tiny_rmir, models, "--report", report)

    assert [entry["has_run"] for entry in entries(report)] == [True] * 3
    assert all(0 < entry["largest_difference"] <= 1e-4 for entry in entries(report))
    for folder in models.glob("riva-trt-*"):
        stamp = repository.read_config(folder).parameters
        assert (stamp["engine_library"], stamp["compute_capability"]) == (library, CAPABILITY)


@pytest.mark.parametrize("library", LIBRARIES)
def test_an_engine_that_computes_something_else_is_not_deployed(
    tmp_path: Path, tiny_rmir: Path, monkeypatch: pytest.MonkeyPatch, library: str
) -> None:
    """The graph that it was built of is right, and does not excuse it."""
    monkeypatch.setenv(FAULT, "wrong")

    done = run("riva-deploy", f"--runtime={library}", tiny_rmir, tmp_path / "models")

    assert done.returncode == 1
    assert "differs from its source by" in done.stderr
    assert not list((tmp_path / "models").iterdir())


@pytest.mark.parametrize(
    ("fault", "code", "said"),
    [
        ("refuse", 5, "which has compute capability 9.0"),
        ("start", 5, "does not start here: CUDA initialization failure"),
        ("context", 7, "no execution context: IExecutionContext: Error Code 2: OutOfMemory"),
        ("execute", 1, "does not run: IExecutionContext::enqueueV3"),
        ("synchronise", 1, "cudaStreamSynchronize: an illegal memory access"),
    ],
)
def test_a_deploy_quotes_what_the_library_says(
    tmp_path: Path,
    tiny_rmir: Path,
    monkeypatch: pytest.MonkeyPatch,
    fault: str,
    code: int,
    said: str,
) -> None:
    """Its reason is in the error, and what it says besides is in the log; nothing is deployed.

    Whether it builds for the GPU that is here, it knows best: this one is not on its list.
    """
    monkeypatch.setenv("STAND_IN_CAPABILITY", "9.0")
    monkeypatch.setenv(FAULT, fault)

    done = run("riva-deploy", "--runtime=tensorrt_rtx", tiny_rmir, tmp_path / "models")

    assert done.returncode == code, done.stderr
    assert said in done.stderr.partition("\nerror: ")[2]
    assert "Traceback" not in done.stderr
    assert fault == "synchronise" or " ERROR tensorrt_rtx: " in done.stderr
    assert not list((tmp_path / "models").iterdir())


def test_engines_for_another_gpu_are_not_run(tmp_path: Path, tiny_rmir: Path) -> None:
    """The error names both; where it is allowed, what they are built of is compared instead."""
    options = ("--runtime=tensorrt_rtx", "--compute_capability=12.0")
    report = tmp_path / "report.json"

    done = run("riva-deploy", *options, tiny_rmir, tmp_path / "models")

    assert done.returncode == 5
    assert "is for compute capability 12.0, and the GPU here has 8.9" in done.stderr
    succeed(
        *("riva-deploy", *options, "--allow_unrun", tiny_rmir, tmp_path / "models"),
        *("--report", report),
    )
    assert [entry["has_run"] for entry in entries(report)] == [False] * 3


def test_timings_are_kept_for_the_next_build(tmp_path: Path, tiny_rmir: Path) -> None:
    """Each build begins with what the ones before have measured."""
    cache = tmp_path / "timings"
    options = ("-f", "--runtime=tensorrt", f"--timing_cache={cache}")

    for builds in (3, 6):
        succeed("riva-deploy", *options, tiny_rmir, tmp_path / "models")
        assert cache.read_bytes() == b"measured;" * builds


@pytest.mark.parametrize("library", LIBRARIES)
def test_words_and_times_are_those_of_onnx(
    tmp_path: Path, tiny_rmir: Path, tiny_repository: Path, library: str
) -> None:
    """Whole utterances and streams give the same from engines, and so does a batch of several."""
    succeed("riva-deploy", f"--runtime={library}", tiny_rmir, tmp_path / "models")

    recognizers = load_recognizers(tmp_path / "models")

    assert heard(recognizers) == heard(load_recognizers(tiny_repository))
    offline = next(one for one in recognizers if isinstance(one, OfflineRecognizer))
    offline.learn_to_join()
    windows = [offline.log_mel(signal) for signal in SIGNALS]
    for steps, window in zip(offline.run(windows), windows, strict=True):
        np.testing.assert_allclose(steps, offline.acoustic(window), atol=1e-3)


def test_a_server_runs_engines(digits_engines: Path) -> None:
    """Many clients at once, with streams and whole recordings, are told what was said."""
    audio = SAMPLE.read_bytes()

    with serving(digits_engines, quiet=True) as (uri, _), ThreadPoolExecutor(8) as pool:
        asr = riva.client.ASRService(riva.client.Auth(uri=uri))
        calls = [pool.submit(ask, asr, audio) for ask in [offline_text, streamed_text] * 4]
        texts = [call.result() for call in calls]

    assert [text.split() for text in texts] == [SAID.split()] * 8
