"""How far the graph for whole utterances looks, where that is not what the checkpoint says."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pytest

from riva_speech.archive import open_archive
from riva_speech.asr.pipeline import AcousticConfig
from riva_speech.errors import SpeechError, UsageError
from riva_speech.servicemaker import nemo2riva
from riva_speech.servicemaker.conversion import ConvertOptions, convert
from riva_speech.servicemaker.families import context
from riva_speech.servicemaker.families.graphs import check_graph
from support.audio import babble
from support.checkpoints import ARCHITECTURES, save_checkpoint
from support.nemo import Pair, deploy, nemo_encoded, nemo_log_probs, restored

if TYPE_CHECKING:
    from pathlib import Path

    from riva_speech.asr.streaming_config import AttentionContext

TOLERANCE = 1e-3
# The small checkpoints learnt (70, 6) and (70, 1).
LEARNT = (70, 6)
# Six chunks of 14 steps of 80 ms, and a part of one.
CONTEXT, SAMPLES = (28, 13), babble(7.6, seed=3)
# A CTC head, and the other one of a hybrid.
HEADS = {"fastconformer-streaming-char": "ctc", "hybrid-streaming-char": "rnnt"}


@dataclass(frozen=True)
class Conversions:
    """A checkpoint and its head, converted without the option, and with it and deployed."""

    head: str
    plain: Path
    further: Path
    pair: Pair


def options(
    checkpoint: Path, out: Path, asked: AttentionContext | None = None, head: str = "ctc"
) -> ConvertOptions:
    """Return what a conversion is asked for; its graph is checked."""
    return ConvertOptions(
        checkpoint,
        out,
        key=None,
        force=False,
        device="cpu",
        onnx_opset=17,
        decoder=head,
        runtime_check=True,
        offline_context=asked,
    )


@pytest.fixture(scope="module", params=HEADS)
def converted(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Conversions:
    folder, head = tmp_path_factory.mktemp(request.param), HEADS[request.param]
    checkpoint, plain = folder / "model.nemo", folder / "plain.riva"
    save_checkpoint(ARCHITECTURES[request.param], checkpoint)
    convert(options(checkpoint, plain, head=head))
    deployed = deploy(checkpoint, folder, look_aheads=[0.56], head=head, offline_context=CONTEXT)
    pair = Pair(restored(checkpoint), folder / "models", deployed)
    return Conversions(head, plain, folder / "model.riva", pair)


@pytest.mark.nemo
def test_whole_utterances_are_heard_as_nemo_does_in_that_context(converted: Conversions) -> None:
    """What is deployed gives NeMo's numbers over several chunks, and not those of the default."""
    numbers = nemo_log_probs if converted.head == "ctc" else nemo_encoded
    nemo, recognizer = converted.pair.nemo, converted.pair.offline()
    expected = {}
    for size in (LEARNT, CONTEXT):
        nemo.encoder.set_default_att_context_size(list(size))
        expected[size] = numbers(nemo, SAMPLES)

    found = recognizer.log_probs(recognizer.log_mel(SAMPLES))

    np.testing.assert_allclose(found, expected[CONTEXT], atol=TOLERANCE)
    assert np.abs(found - expected[LEARNT]).max() > 10 * TOLERANCE


@pytest.mark.nemo
def test_no_other_graph_is_another(converted: Conversions, tmp_path: Path) -> None:
    """What streams run on, and all weights, have the same bytes with the option and without."""
    contents: list[dict[str, bytes]] = [{}, {}]
    for path, found in zip((converted.plain, converted.further), contents, strict=True):
        with open_archive(path, kind="riva") as archive:
            for name in archive.names:
                archive.extract(name, tmp_path / name)
                found[name] = (tmp_path / name).read_bytes()
    plain, further = contents

    assert sum("streaming" in name for name in plain) == 4
    assert plain.keys() == further.keys()
    assert [name for name in plain if plain[name] != further[name]] == ["model_graph.onnx"]


@pytest.mark.nemo
def test_what_a_graph_sees_is_told(converted: Conversions) -> None:
    """Archives and deployed pipelines say it, with the option and without."""
    told = []
    for path in (converted.plain, converted.further):
        with open_archive(path, kind="riva") as archive:
            told.append(archive.metadata["acoustic"]["offline_context"])
            assert "({}, {})".format(*told[-1]) in archive.metadata["architecture"]
    pair = converted.pair

    assert told == [list(LEARNT), list(CONTEXT)]
    assert pair.offline().config.acoustic.offline_context == CONTEXT
    assert [one.config.acoustic.offline_context for one in pair.streaming()] == [None]


@pytest.mark.nemo
def test_a_graph_is_checked_in_its_context(converted: Conversions, tmp_path: Path) -> None:
    """The check tells a graph from NeMo's model that looks less far."""
    nemo, acoustic = converted.pair.nemo, converted.pair.offline().config.acoustic
    part = nemo if converted.head == "ctc" else nemo.encoder
    with open_archive(converted.further, kind="riva") as archive:
        for name in ("model_graph.onnx", "model_weights.bin"):
            archive.extract(name, tmp_path / name)

    context.look(nemo.encoder, CONTEXT)
    check_graph(part, tmp_path / "model_graph.onnx", acoustic)
    context.look(nemo.encoder, LEARNT)
    with pytest.raises(SpeechError, match="differs from NeMo"):
        check_graph(part, tmp_path / "model_graph.onnx", acoustic)


@pytest.mark.nemo
@pytest.mark.parametrize("asked", [(-1, -1), (9, -1), (-1, 13), (0, 13)])
def test_a_context_may_be_all_or_nothing(tmp_path: Path, asked: AttentionContext) -> None:
    """NeMo takes these too, each by a mask of its own: the check on the way holds them together."""
    checkpoint, riva = tmp_path / "model.nemo", tmp_path / "model.riva"
    save_checkpoint(ARCHITECTURES["fastconformer-streaming-char"], checkpoint)

    convert(options(checkpoint, riva, asked))

    with open_archive(riva, kind="riva") as archive:
        assert archive.metadata["acoustic"]["offline_context"] == list(asked)


@pytest.mark.nemo
def test_other_models_are_refused(tmp_path: Path) -> None:
    """The context of a model that is not cache-aware is its own, whatever is asked for."""
    checkpoint = tmp_path / "model.nemo"
    save_checkpoint(ARCHITECTURES["conformer-offline-char"], checkpoint)

    with pytest.raises(UsageError, match="--offline-context is for cache-aware models") as caught:
        convert(options(checkpoint, tmp_path / "model.riva", CONTEXT))

    assert "leave the option out" in (caught.value.hint or "")
    assert [path.name for path in tmp_path.iterdir()] == ["model.nemo"]


@pytest.mark.parametrize(
    "asked", [(140, 69), (0, 13), (14, 13), (200, 0), (-1, 13), (-1, -1), (9, -1), (0, 200)]
)
def test_a_context_of_whole_chunks_within_reach_is_taken(asked: AttentionContext) -> None:
    """No chunk before, some, or all of them; and all that comes behind."""
    assert context.checked(asked, 200) == asked


@pytest.mark.parametrize(
    ("asked", "said", "hint"),
    [
        ((100, 69), "a multiple of RIGHT + 1, which is 70", "LEFT may be 70 or 140"),
        ((13, 13), "a multiple of RIGHT + 1, which is 14", "LEFT may be 14"),
        ((210, 69), "the model's positions are 200 steps", "at most 200"),
        ((-1, 201), "the model's positions are 200 steps", "at most 200"),
        ((-2, 69), "out of reach", "-1 for all"),
    ],
)
def test_a_context_that_no_graph_can_have_is_refused(
    asked: AttentionContext, said: str, hint: str
) -> None:
    """The message names the option as it was given, and the hint what may be given."""
    with pytest.raises(UsageError) as caught:
        context.checked(asked, 200)

    assert "--offline-context {} {}".format(*asked) in caught.value.message
    assert said in caught.value.message
    assert hint in (caught.value.hint or "")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["70", "-2"], "-2 is no number of steps"),
        (["70"], "expected 2 arguments"),
        (["70", "thirteen"], "thirteen"),
    ],
)
def test_what_is_no_context_is_refused(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The option wants two numbers of steps."""
    with pytest.raises(SystemExit) as ended:
        nemo2riva.parse(["m.nemo", "--offline-context", *words])

    assert ended.value.code == 2
    assert said in capsys.readouterr().err


def test_older_archives_do_not_say_it(tiny_riva: Path) -> None:
    """A description without the entry is read, and nothing is made up for it."""
    with open_archive(tiny_riva, kind="riva") as archive:
        described = dict(archive.metadata["acoustic"])
    described.pop("offline_context", None)

    assert AcousticConfig.from_mapping(described).offline_context is None


@pytest.mark.parametrize("value", [[1], [1, 2, 3], "far", 7, [None, 1]])
def test_a_malformed_context_is_refused(tiny_riva: Path, value: object) -> None:
    """A description whose context is no pair of numbers is a damaged archive."""
    with open_archive(tiny_riva, kind="riva") as archive:
        described = {**archive.metadata["acoustic"], "offline_context": value}

    with pytest.raises(SpeechError, match="malformed"):
        AcousticConfig.from_mapping(described)
