"""A deploy by NVIDIA's image is judged by what it left, whatever its exit status says."""

from __future__ import annotations

import pytest

from quickstart.backends.judge import judge
from quickstart.errors import RivaQsError

ENGINE = {"image": "riva-speech"}
ASR = (
    "riva-trt-conformer-en-US-asr-streaming-am-streaming",
    "conformer-en-US-asr-streaming-asr-bls-ensemble",
)
NLP = ("riva-trt-riva-punctuation-en-US-nn-bert-base-uncased", "riva-punctuation-en-US")
GOOD = [
    f"./{ASR[0]}/config.pbtxt",
    f"./{ASR[0]}/1/model.plan",
    f"./{ASR[1]}/config.pbtxt",
    f"./{ASR[1]}/1/riva_bls_config.yaml",
    f"./{NLP[0]}/config.pbtxt",
    f"./{NLP[0]}/1/model.plan",
    f"./{NLP[1]}/config.pbtxt",
    f'{ASR[0]}/config.pbtxt:platform: "tensorrt_plan"',
    f'{ASR[1]}/config.pbtxt:backend: "riva_asr_bls"',
    f'{NLP[0]}/config.pbtxt:  platform:"tensorrt_plan"',
    f'{NLP[1]}/config.pbtxt:platform: "ensemble"',
]
LOG = [
    "2026-01-31 [INFO] Writing Riva model repository to '/data/models'...",
    f"[INFO] Extract_binaries for am -> /data/models/{ASR[0]}/1",
    f"[INFO] Extract_binaries for self -> /data/models/{ASR[1]}/1",
    f"[INFO] Extract_binaries for language_model -> /data/models/{NLP[0]}/1",
    f"[INFO] Extract_binaries for self -> /data/models/{NLP[1]}/1",
]
RMIRS = ("asr.rmir", "nlp.rmir")


def judged(
    listing: list[str], log: list[str] = LOG, rmirs: tuple[str, ...] = RMIRS
) -> set[tuple[str, ...]]:
    report = judge("\n".join(listing), log, rmirs, ENGINE)
    assert report.engine == ENGINE
    return {(m.rmir, m.name, m.service, m.type, m.language_code) for m in report.models}


def test_models_are_told_by_archive() -> None:
    """Each archive's models have a name, a service, a type and a language."""
    assert judged(GOOD) == {
        ("asr.rmir", ASR[1], "asr", "online", "en-US"),
        ("nlp.rmir", NLP[1], "nlp", "online", "en-US"),
    }


def test_a_component_that_was_there_counts() -> None:
    """What riva-deploy skips, since an archive before brought it, is part of the model too."""
    skipped = f"[WARNING] /data/models/{NLP[0]} already exists, skipping deployment.  To force"
    log = [*LOG[:3], skipped, LOG[4]]
    assert len(judged(GOOD, log)) == 2


@pytest.mark.parametrize("gone", [0, 1, 2, 3, 4, 5, 6])
def test_a_file_that_is_missing_is_found(gone: int) -> None:
    """Without any one of its files a model is incomplete, and the error says which and what."""
    listing = [line for i, line in enumerate(GOOD) if i != gone]
    directory = GOOD[gone].split("/")[1]
    with pytest.raises(RivaQsError, match=directory):
        judged(listing)


def test_an_archive_that_became_nothing_is_found() -> None:
    """A log that ends after the first archive betrays the second."""
    with pytest.raises(RivaQsError, match=r"of asr\.rmir, nlp\.rmir only 1 became"):
        judged(GOOD[:4] + GOOD[7:9], LOG[:3])


@pytest.mark.parametrize("log", [[], LOG])
def test_an_empty_repository_is_no_success(log: list[str]) -> None:
    """Nothing at all is never a good deploy."""
    with pytest.raises(RivaQsError):
        judged([], log)


def test_an_unknown_log_leaves_the_files_to_judge() -> None:
    """Where the log says nothing known, all directories still must be complete."""
    assert len(judged(GOOD, ["all is well"])) == 2
    with pytest.raises(RivaQsError, match=r"has no 1/model\.plan"):
        judged([line for line in GOOD if "model.plan" not in line], [])


def test_weights_may_have_a_name_of_their_own() -> None:
    """default_model_filename says which file holds the weights."""
    named = 'x/config.pbtxt:default_model_filename: "model_graph.onnx"'
    listing = ["./x/config.pbtxt", 'x/config.pbtxt:backend: "onnxruntime"', named]
    assert judged([*listing, "./x/1/model_graph.onnx"], [], ("a.rmir",))
    with pytest.raises(RivaQsError, match="model_graph"):
        judged([*listing, "./x/1/model.onnx"], [], ("a.rmir",))
