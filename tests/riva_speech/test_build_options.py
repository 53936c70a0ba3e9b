"""Every option of riva-build, one by one: what it does is what its help and the docs say of it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from riva_speech.archive import open_archive
from riva_speech.errors import UnsupportedError
from riva_speech.servicemaker import reference, riva_build
from riva_speech.servicemaker.pipelines import decoders
from riva_speech.servicemaker.pipelines.effects import Effect
from support.programs import succeed

if TYPE_CHECKING:
    from riva_speech.servicemaker.reference import Option

BUILD = ("riva-build", "speech_recognition")
PAGE = Path(__file__).parents[2] / "docs" / "riva-build.md"
OPTIONS = reference.options()
REFUSED = [one for one in OPTIONS if one.effect is Effect.REFUSED]
IDLE = [one for one in OPTIONS if one.effect is Effect.NONE]
FIXED = [one for one in OPTIONS if one.effect is Effect.ONE_VALUE]

# Every option of the official tool's documentation, with a value from its examples.
_OPTIONS = """
--name=x --language_code=en-US --offline --streaming=False --chunk_size=0.16
--left_padding_size=1.92 --right_padding_size=1.92 --padding_size=1.92 --decoder_chunk_size=0.96
--ms_per_timestep=80 --max_batch_size=16 --nn.max_batch_size=128 --nn.opt_batch_size=128
--nn.fp16_needs_obey_precision_pass --nn.use_trt_fp32 --featurizer.use_utterance_norm_params=False
--featurizer.precalc_norm_time_steps=0 --featurizer.precalc_norm_params=False
--featurizer.max_batch_size=512 --featurizer.max_execution_batch_size=512
--featurizer.opt_batch_size=512 --return_separate_utterances=False --endpointing_type=greedy_ctc
--endpointing.start_history=200 --endpointing.start_th=0.2 --endpointing.stop_history=800
--endpointing.stop_th=0.98 --endpointing.residue_blanks_at_start=-2
--endpointing.residue_blanks_at_end=0 --vad.residue_blanks_at_start=-2
--endpointing.min_batch_size=1 --endpointing.max_batch_size=1 --endpointing.opt_batch_size=1
--decoder_type=greedy --greedy_decoder.asr_model_delay=-1 --flashlight_decoder.lm_weight=0.8
--flashlight_decoder.word_insertion_score=1.0 --flashlight_decoder.beam_size=32
--flashlight_decoder.beam_size_token=16 --flashlight_decoder.beam_threshold=20.
--flashlight_decoder.num_tokenization=1 --flashlight_decoder.use_lexicon_free_decoding
--flashlight_decoder.asr_model_delay=-1 --flashlight_decoder.max_batch_size=1
--flashlight_decoder.min_batch_size=1 --flashlight_decoder.opt_batch_size=1
--flashlight_decoder.max_execution_batch_size=1 --os2s_decoder.beam_search_width=1
--os2s_decoder.language_model_alpha=1 --os2s_decoder.language_model_beta=1
--kaldi_decoder.asr_model_delay=5 --kaldi_decoder.default_beam=17.0
--kaldi_decoder.max_active=7000 --kaldi_decoder.determinize_lattice=true
--kaldi_decoder.max_batch_size=1 --nemo_decoder.language_model_alpha=0.5
--nemo_decoder.language_model_file=x.nemo --nemo_decoder.use_stateful_decoding
--decoding_language_model_binary=x --decoding_language_model_arpa=x
--decoding_language_model_fst=x --decoding_language_model_words=x --decoding_vocab=x
--decoding_lexicon=x --wfst_tokenizer_model=x --wfst_verbalizer_model=x --speech_hints_model=x
--profane_words_file=x --unified_acoustic_model --vad_type=silero --vad_model=x
--neural_vad.onset=.85 --neural_vad.offset=.3 --neural_vad.min_duration_on=.2
--neural_vad.min_duration_off=.5 --neural_vad.pad_onset=.3 --neural_vad.pad_offset=.08
--diarization_type=sortformer --diarization_model=x --sortformer_diarizer.min_speakers=1
--sortformer_diarizer.max_speakers=8 --sortformer_diarizer.speaker_label_coverage=0.8
"""
OFFICIAL = _OPTIONS.split()


def reason(option: Option) -> str:
    return option.text.partition(": ")[2]


def refusal(option: str, capsys: pytest.CaptureFixture[str]) -> str:
    """Return what the program says to an option that ends it."""
    with pytest.raises(SystemExit) as ended:
        riva_build.parse(["speech_recognition", "out.rmir", "in.riva", option])
    assert ended.value.code == 2
    return capsys.readouterr().err


def test_the_documented_options_are_those_of_the_program() -> None:
    """The tables of docs/riva-build.md are what ``python -m ...reference`` prints."""
    found = re.search(
        r"<!-- options: begin -->\n\n(.*)\n\n<!-- options: end -->", PAGE.read_text(), re.DOTALL
    )

    assert found is not None
    assert found[1] == reference.table()


def test_every_official_option_is_there_and_explained() -> None:
    """What works has a text and a default, and what does not has a reason."""
    named = {option.split("=")[0] for option in OFFICIAL}

    assert not named - {one.name for one in OPTIONS}
    assert not [one for one in OPTIONS if not one.text]
    assert not [one for one in OPTIONS if one.effect is Effect.WORKS and not one.default]
    assert not [one for one in OPTIONS if one.effect is not Effect.WORKS and not reason(one)]


def test_the_help_names_every_option() -> None:
    """What the table knows, ``-h`` shows."""
    text = succeed(*BUILD, "-h").stdout

    assert not [one.name for one in OPTIONS if f"{one.name} " not in text]


@pytest.mark.parametrize("option", [one for one in OFFICIAL if one.split("=")[0] not in
                                    {refused.name for refused in REFUSED}])  # fmt: skip
def test_the_examples_of_the_official_tool_are_taken(option: str) -> None:
    """An option that is not refused is read with a value of NVIDIA's documentation."""
    riva_build.parse(["speech_recognition", "out.rmir", "in.riva", option])


@pytest.mark.parametrize("option", REFUSED, ids=lambda one: one.name)
def test_what_is_refused_says_why(option: Option, capsys: pytest.CaptureFixture[str]) -> None:
    """Each ends the program with exit code 2, its name, and the reason that is documented."""
    said = refusal(f"{option.name}=1", capsys)

    assert f"{option.name}: not supported: {reason(option)}" in said


@pytest.mark.parametrize("option", FIXED, ids=lambda one: one.name)
def test_another_value_than_the_only_one_is_refused(
    option: Option, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where one value works, the others end the program with the reason that is documented."""
    name, value = option.usage.split("=")
    other = {"True": "False", "False": "True"}.get(value, "2")

    said = refusal(f"{name}={other}", capsys)

    assert f"{name}: {other} is not supported: {reason(option)}" in said


def test_what_has_no_effect_changes_no_byte_and_says_so(tiny_riva: Path, tmp_path: Path) -> None:
    """An archive built with all that has no effect, and all only values, is the one built without.

    Each option without effect is named in the log, with the reason that is documented.
    """
    plain, full = tmp_path / "plain.rmir", tmp_path / "full.rmir"
    switches = {"--nn.fp16_needs_obey_precision_pass", "--nemo_decoder.use_stateful_decoding"}
    idle = [one.name if one.name in switches else f"{one.name}=4" for one in IDLE]

    succeed(*BUILD, plain, tiny_riva)
    done = succeed(*BUILD, full, tiny_riva, *idle, *(one.usage for one in FIXED))

    assert full.read_bytes() == plain.read_bytes()
    assert not [
        one.name for one in IDLE if f"{one.name} has no effect: {reason(one)}" not in done.stderr
    ]


def test_what_engines_are_built_from_is_kept(tiny_riva: Path, tmp_path: Path) -> None:
    """riva-deploy finds batch sizes and precision in the RMIR."""
    rmir = tmp_path / "out.rmir"

    succeed(*BUILD, rmir, tiny_riva, "--nn.max_batch_size=8", "--nn.use_trt_fp32")

    with open_archive(rmir, kind="rmir") as archive:
        assert archive.metadata["engine"] == {"nn.max_batch_size": 8, "nn.use_trt_fp32": True}


@pytest.mark.parametrize("kind", ["binary", "arpa"])
@pytest.mark.parametrize("head", ["rnnt", "tdt"])
def test_a_language_model_for_a_transducer_is_refused(head: str, kind: str) -> None:
    """The refusal says what to do instead, and never names a decoder that would be refused too."""
    option = f"--decoding_language_model_{kind}"
    options = riva_build.parse(["speech_recognition", "out.rmir", "in.riva", f"{option}=lm"])

    with pytest.raises(UnsupportedError, match="not in this version") as caught:
        decoders.configure(options, head, "online")

    assert option in caught.value.message
    assert "leave the option out" in str(caught.value.hint)
