from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import pytest
import riva.client

from support.audio import babble, pcm16, wav
from support.client import (
    CHUNK,
    INVALID,
    Request,
    config,
    cut,
    final_text,
    refusal,
    results,
    stream,
    streaming_config,
)

if TYPE_CHECKING:
    from collections.abc import Iterable
    from concurrent.futures import Future

    from support.client import Response

RATE = 16000
SAMPLES = babble(3.3)
FORCE = {"force_eou": "true"}


def converse(
    asr: riva.client.ASRService, messages: Iterable[Request], **values: object
) -> list[Response]:
    """Send a stream's messages behind its configuration."""
    first = Request(streaming_config=streaming_config(sample_rate_hertz=RATE, **values))
    return list(asr.stub.StreamingRecognize(iter([first, *messages])))


def audio(*pieces: bytes) -> list[Request]:
    return [Request(audio_content=piece) for piece in pieces]


def times(responses: list[Response]) -> list[tuple[str, int, int]]:
    return [
        (word.word, word.start_time, word.end_time)
        for one in results(responses, final=True)
        for alternative in one.alternatives
        for word in alternative.words
    ]


def test_an_interim_result_is_told_once(asr: riva.client.ASRService) -> None:
    """A chunk that changes nothing is answered with no results."""
    responses = stream(asr, cut(wav(SAMPLES), 640), interim=True)

    texts = [one.alternatives[0].transcript for one in results(responses, final=False)]
    assert texts
    assert all(one != other for one, other in pairwise(texts))
    assert any(not response.results for response in responses)


def test_the_first_pass_tells_an_end_with_full_stability(asr: riva.client.ASRService) -> None:
    """Where the shorter window is silent, one interim result has a stability of 1; others 0.1."""
    first_pass = riva.client.EndpointingConfig(
        stop_history=0, stop_history_eou=80, stop_threshold_eou=0.0
    )
    never = riva.client.EndpointingConfig(stop_history=0)

    with_it, without = (
        results(stream(asr, cut(wav(SAMPLES)), interim=True, endpointing_config=one), final=False)
        for one in (first_pass, never)
    )

    assert [round(one.stability, 3) for one in with_it].count(1.0) == 1
    assert {round(one.stability, 3) for one in without} == {0.1}


@pytest.mark.parametrize("rides_on_audio", [True, False])
def test_a_forced_end_gives_the_final_at_once(
    asr: riva.client.ASRService, *, rides_on_audio: bool
) -> None:
    """The final is that of a stream which ends there, and what follows that of a new stream."""
    before, after = pcm16(SAMPLES[:RATE]), pcm16(SAMPLES[RATE:])
    bare = {"enable_word_time_offsets": True}
    alone = [converse(asr, audio(*cut(one)), **bare) for one in (before, after)]
    messages = audio(*cut(before))
    if rides_on_audio:
        messages[-1].runtime_config.update(FORCE)
    else:
        messages.append(Request(runtime_config=FORCE))

    responses = converse(asr, [*messages, *audio(*cut(after))], **bare)

    assert [one.is_final for one in responses[len(messages) - 1].results] == [True]
    assert final_text(responses) == "".join(map(final_text, alone))
    later = [(word, start + 1000, end + 1000) for word, start, end in times(alone[1])]
    assert times(responses) == [*times(alone[0]), *later]
    assert results(responses, final=True)[-1].audio_processed == pytest.approx(3.3, abs=0.01)


def test_a_forced_end_is_answered_even_where_nothing_was_said(
    asr: riva.client.ASRService,
) -> None:
    """Who asks for an end gets a final, without alternatives if there are no words."""
    forced = Request(runtime_config=FORCE)

    response, last = converse(asr, [forced])

    assert [(one.is_final, len(one.alternatives)) for one in response.results] == [(True, 0)]
    assert not last.results


def test_what_a_runtime_config_cannot_be_is_refused(asr: riva.client.ASRService) -> None:
    """A key or value that is not known ends the stream, wherever it stands."""
    wrong = Request(audio_content=bytes(CHUNK), runtime_config={"stop": "true"})
    first = Request(streaming_config=streaming_config(), runtime_config={"force_eou": "perhaps"})

    for call in (
        lambda: converse(asr, [wrong]),
        lambda: list(asr.stub.StreamingRecognize(iter([first]))),
    ):
        code, text = refusal(call)
        assert (code, "runtime_config" in text) == (INVALID, True)


def test_a_stream_outlives_a_minute_of_silence(
    asr: riva.client.ASRService, quiet: Future[list[Response]]
) -> None:
    """Nothing is sent for longer than proxies and servers like; then the stream goes on."""
    data = wav(SAMPLES)
    expected = stream(asr, cut(data, len(data) // 2 + 1))

    assert final_text(quiet.result(timeout=120)) == final_text(expected)


def test_ids_are_echoed_by_every_response(asr: riva.client.ASRService) -> None:
    """Each response of a stream has the id of its configuration, and none where it has none."""
    first = Request(streaming_config=streaming_config(sample_rate_hertz=RATE), id={"value": "42"})

    responses = list(asr.stub.StreamingRecognize(iter([first, *audio(*cut(pcm16(SAMPLES)))])))

    assert {one.id.value for one in responses} == {"42"}
    assert not any(one.HasField("id") for one in converse(asr, audio(pcm16(SAMPLES))))


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"custom_configuration": {"no_such": "1"}}, "'no_such' is not known. Known are: "),
        ({"diarization_config": {"enable_speaker_diarization": True}}, "diarization"),
        ({"max_alternatives": -3}, "max_alternatives"),
        ({"model": "x" * 5000}, "model is longer"),
    ],
)
def test_both_calls_refuse_alike(
    asr: riva.client.ASRService, values: dict[str, object], said: str
) -> None:
    """What one RPC cannot do, the other refuses with the same sentence."""
    code, text = refusal(lambda: stream(asr, cut(wav(SAMPLES)), **values))

    assert (code, said in text) == (INVALID, True)
    assert refusal(lambda: asr.offline_recognize(wav(SAMPLES), config(**values))) == (code, text)


@pytest.mark.parametrize("language", ["", "en", "en-US", "EN-us"])
def test_a_language_may_leave_its_region_open(asr: riva.client.ASRService, language: str) -> None:
    """No language, and a language without region, find the model that there is."""
    response = asr.offline_recognize(wav(SAMPLES), config(language_code=language))

    assert response.results[0].alternatives
