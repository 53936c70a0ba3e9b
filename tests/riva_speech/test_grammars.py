"""What riva-build and nemo2riva understand, and what they refuse by name."""

from __future__ import annotations

import tarfile
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from riva_speech.archive import open_archive
from riva_speech.errors import SpeechError, UnsupportedError, UsageError
from riva_speech.servicemaker import conversion, hydra, nemo2riva
from riva_speech.servicemaker.checkpoint import CONFIG, WEIGHTS
from support.programs import run, succeed

if TYPE_CHECKING:
    from pathlib import Path

BUILD = ("riva-build", "speech_recognition")
HYDRA = ("riva-build", "--config-path=pkg://servicemaker.configs.asr")

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


def test_every_official_option_is_explained() -> None:
    """The help of the pipeline knows each option of the official tool, and tells its default."""
    text = succeed(*BUILD, "-h").stdout

    named = {option.split("=")[0] for option in OFFICIAL}
    assert not {option for option in named if f"{option} " not in text}
    explained = [" ".join(one.split()) for one in text.split("\n  --")[1:]]
    assert not [
        one
        for one in explained
        if not any(word in one for word in ("default: ", "refused: ", "no effect: "))
    ]


@pytest.mark.parametrize("option", OFFICIAL)
def test_no_official_option_is_unknown(
    tiny_riva: Path, tmp_path: Path, option: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each works, or is refused by its name and with a reason."""
    from riva_speech.servicemaker import riva_build  # noqa: PLC0415 - the module under test

    words = ["speech_recognition", str(tmp_path / "out.rmir"), str(tiny_riva), option]
    try:
        riva_build.parse(words)
    except SystemExit:
        said = capsys.readouterr().err
        assert "unrecognized" not in said
        assert option.split("=", maxsplit=1)[0] in said
        assert "not supported: " in said


def test_what_has_no_effect_says_so_and_engine_settings_are_kept(
    tiny_riva: Path, tmp_path: Path
) -> None:
    """Tuning of NVIDIA's runtime does no harm; what engines are built from is in the RMIR."""
    rmir = tmp_path / "out.rmir"
    options = ("--nn.max_batch_size=8", "--nn.use_trt_fp32", "--featurizer.max_batch_size=512")

    done = succeed(*BUILD, rmir, tiny_riva, *options)

    assert "--featurizer.max_batch_size has no effect" in done.stderr
    with open_archive(rmir, kind="rmir") as archive:
        assert archive.metadata["engine"] == {"nn.max_batch_size": 8, "nn.use_trt_fp32": True}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--decoder_type=nemo"], "does not decode a model with a ctc head"),
        (["--endpointing_type=niva"], "not for a ctc head"),
        (["--padding_size=1.6"], "cache-aware"),
        (["--featurizer.use_utterance_norm_params=True"], "whole of a stream"),
        (["--nn.opt_batch_size=0"], "not a positive number"),
        (["--nn.opt_batch_size=4", "--nn.max_batch_size=2"], "4 usually and 2 at most"),
        (["--max_batch_size=70000"], "no batch size"),
        (["--vad_model=x"], "--vad_model needs --vad_type"),
        (["--vad_type=silero", "--neural_vad.onset=2"], "probabilities, 0 to 1"),
        (["--return_separate_utterances"], "gives one result"),
        (["--wfst_tokenizer_model=x.far"], "needs --wfst_verbalizer_model"),
        (["--chunk=0.16"], "unrecognized"),
    ],
)
def test_what_does_not_fit_the_model_is_a_usage_error(
    tiny_riva: Path, tmp_path: Path, options: list[str], said: str
) -> None:
    """Combinations that would give bad text silently are refused."""
    done = run(*BUILD, tmp_path / "out.rmir", tiny_riva, *options)

    assert done.returncode == 2
    assert said in done.stderr


def test_both_grammars_build_the_same(tiny_riva: Path, tmp_path: Path) -> None:
    """The newer grammar gives the bytes that the older one gives."""
    old, new = tmp_path / "old.rmir", tmp_path / "new.rmir"

    succeed(*BUILD, old, tiny_riva, "--offline", "--name=my-asr", "--decoder_type=greedy")
    settings = (f"output_path={new}", f"source_path=[{tiny_riva}]", "name=my-asr", "decoder=greedy")
    succeed(*HYDRA, "--config-name=offline", *settings)

    assert old.read_bytes() == new.read_bytes()
    again = run(*HYDRA, "--config-name=offline", *settings)
    assert again.returncode == 2
    succeed(*HYDRA, "--config-name=offline", *settings, "force=true")


@pytest.mark.parametrize(
    ("words", "error", "said"),
    [
        (["--config-name=offline", "-f"], UsageError, "force=true"),
        (["--config-name=offline", "--name=x"], UsageError, "use name=x"),
        (["--config-name=offline", "x"], UsageError, "not key=value"),
        (["--config-name=whisper"], UsageError, "one of streaming, offline"),
        (["--config-name=offline", "source_path=[a.riva]"], UsageError, "output_path"),
        (["--config-name=offline", "output_path=a", "source_path=[a"], UsageError, "source_path"),
        (["--config-name=offline", "output_path=a", "source_path=[{x: y}]"], UsageError, "path:"),
    ],
)
def test_mistakes_in_the_newer_grammar_are_told(
    words: list[str], error: type[SpeechError], said: str
) -> None:
    """Each mistake has its own sentence, and says what to write instead."""
    with pytest.raises(error) as caught:
        hydra.translate(["--config-path=pkg://servicemaker.configs.asr", *words])

    assert said in f"{caught.value.message} {caught.value.hint}"


def test_a_checkpoint_may_be_given_inline() -> None:
    """Checkpoints are named with how to convert them; keys stay with their archives."""
    command = hydra.translate(
        [
            "--config-path",
            "pkg://servicemaker.configs.asr",
            "--config-name",
            "streaming",
            "output_path=out.rmir:key",
            (
                "source_path=[{path: m.nemo, "
                "nemo2riva: {format: onnx, onnx_opset: 19, max_dim: 1000}}]"
            ),
            "chunk_size=0.16",
        ]
    )

    assert command.argv == ["speech_recognition", "--chunk_size=0.16", "out.rmir:key", "m.nemo"]
    assert command.conversions == {"m.nemo": {"format": "onnx", "onnx_opset": 19, "max_dim": 1000}}


@pytest.mark.parametrize(
    "pipeline",
    ["speech_synthesis", "punctuation", "qa", "token_classification", "intent_slot",
     "text_classification", "translation", "megatron_translation"],
)  # fmt: skip
def test_other_pipelines_say_what_they_wait_for(pipeline: str) -> None:
    """A pipeline that is not there yet answers with its name, whatever follows it."""
    done = run("riva-build", pipeline, "-h")

    assert done.returncode == 5
    assert f"error: the pipeline {pipeline} is not in this version: it waits for" in done.stderr


def options(**given: Any) -> conversion.ConvertOptions:
    """Return conversion options."""
    from pathlib import Path  # noqa: PLC0415 - types only elsewhere

    plain = {"key": None, "force": False, "device": "cpu", "onnx_opset": 17}
    return conversion.ConvertOptions(Path("m.nemo"), Path("m.riva"), **{**plain, **given})


@pytest.mark.parametrize(
    ("class_name", "given", "head"),
    [
        ("EncDecCTCModel", {}, "ctc"),
        ("EncDecRNNTBPEModel", {}, "rnnt"),
        ("EncDecRNNTBPEModel", {"format": "NEMO"}, "rnnt"),
        ("EncDecHybridRNNTCTCBPEModel", {}, "ctc"),
        ("EncDecHybridRNNTCTCBPEModel", {"decoder": "rnnt"}, "rnnt"),
        ("EncDecHybridRNNTCTCModel", {"format": "NEMO"}, "rnnt"),
    ],
)
def test_the_head_follows_from_the_checkpoint(
    class_name: str, given: dict[str, Any], head: str
) -> None:
    """Nobody has to know which flags an architecture wants."""
    assert conversion.head_of(class_name, options(**given)) == head


@pytest.mark.parametrize(
    ("class_name", "given", "error", "said"),
    [
        ("EncDecMultiTaskModel", {}, UnsupportedError, "Canary"),
        ("SortformerEncLabelModel", {}, UnsupportedError, "diarization"),
        ("", {}, UnsupportedError, "unknown"),
        ("EncDecCTCModel", {"decoder": "rnnt"}, UsageError, "no rnnt head"),
        ("EncDecRNNTModel", {"decoder": "ctc"}, UsageError, "no ctc head"),
        ("EncDecCTCModel", {"format": "TS"}, UnsupportedError, "ONNX graphs only"),
        ("EncDecCTCModel", {"format": "CKPT"}, UnsupportedError, "ONNX graphs only"),
        ("EncDecCTCModel", {"format": "NEMO"}, UnsupportedError, "for a CTC head"),
    ],
)
def test_what_cannot_be_converted_is_refused_by_name(
    class_name: str, given: dict[str, Any], error: type[SpeechError], said: str
) -> None:
    """Each refusal names the class or the option, and why."""
    with pytest.raises(error) as caught:
        conversion.head_of(class_name, options(**given))

    assert said in caught.value.message


def test_the_choices_can_be_repeated_as_a_command() -> None:
    """The command that is printed is read back as the same conversion."""
    chosen = options(decoder="rnnt", max_dim=1000)

    program, *words = conversion.equivalent(chosen, "EncDecHybridRNNTCTCModel", "rnnt").split()

    assert program == "nemo2riva"
    assert nemo2riva.options_of(nemo2riva.parse(words)) == chosen


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--schema"], "manifest of their own"),
        (["--export-subnet"], "all graphs"),
        (["--autocast", "True"], "full precision"),
        (["--export-config", "x=y"], "--export-config x=y is not supported"),
        (["--max-dim", "0"], "not a positive number"),
    ],
)
def test_official_options_without_a_meaning_are_refused(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Options of the official nemo2riva are known, and those that cannot work say why."""
    with pytest.raises(SystemExit):
        nemo2riva.parse(["m.nemo", *words])

    assert said in " ".join(capsys.readouterr().err.split())


def test_harmless_official_options_are_taken() -> None:
    """Command lines of the official documentation run as they are."""
    words = "m.nemo --out m.riva --key k --onnx-opset 19 --max-dim 1000 --max-batch 4 --format nemo"
    more = ["--cache-support", "--autocast", "False", "--validate", "--runtime-check", "--verbose"]
    chosen = nemo2riva.options_of(
        nemo2riva.parse([*words.split(), *more, "--export-config", "decoder_type=rnnt"])
    )

    assert (chosen.onnx_opset, chosen.max_dim, chosen.decoder) == (19, 1000, "rnnt")
    assert chosen.validate
    assert chosen.runtime_check


TRANSDUCER: dict[str, Any] = {
    "target": "nemo.collections.asr.models.rnnt_models.EncDecRNNTModel",
    "preprocessor": {"_target_": "nemo.collections.asr.modules.AudioToMelSpectrogramPreprocessor"},
    "encoder": {"_target_": "nemo.collections.asr.modules.ConformerEncoder"},
    "decoder": {"_target_": "nemo.collections.asr.modules.RNNTDecoder", "vocabulary": ["a"]},
    "joint": {"_target_": "nemo.collections.asr.modules.RNNTJoint"},
    "model_defaults": {"enc_hidden": 4, "pred_hidden": 4},
}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"joint": {"_target_": "os.system"}}, "os.system"),
        ({"joint": {**TRANSDUCER["joint"], "jointnet": {"_target_": "x"}}}, "nests a class"),
        ({"decoder": {"_target_": "evil.RNNTDecoder"}}, "evil.RNNTDecoder"),
        ({"decoder": {"_target_": "nemo.collections.asr.modules.StatelessTransducerDecoder"}},
         "StatelessTransducerDecoder"),
        ({"encoder": {"cls": "os.system", "params": {}}}, "os.system"),
        ({"encoder": {"cls": "nemo.collections.asr.modules.ConformerEncoder", "x": 1}}, "no known"),
        ({"loss": {"loss_name": "multiblank_rnnt"}}, "multiblank_rnnt"),
        ({"loss": {"loss_name": "tdt", "tdt_kwargs": {"durations": [10**9]}}}, "durations"),
        ({"loss": {"loss_name": "tdt"}}, "durations"),
        ({"model_defaults": None}, "model_defaults"),
        ({"preprocessor": {**TRANSDUCER["preprocessor"], "window": "${oc.env:HOME}"}}, "resolver"),
        ({"encoder": {**TRANSDUCER["encoder"], "x": "env", "y": "${oc.${.x}:HOME}"}}, "resolver"),
        ({"encoder": {**TRANSDUCER["encoder"], "x": "oc.env", "y": "${${.x}:HOME}"}}, "resolver"),
        ({"labels": ["a", "${oc.env:HOME}"]}, "resolver"),
        ({"sample_rate": "${oc.env:HOME}"}, "resolver"),
    ],
)  # fmt: skip
def test_hostile_transducers_are_refused_before_nemo_builds_them(
    tmp_path: Path, changes: dict[str, Any], said: str
) -> None:
    """No part of a transducer may name a class, a resolver or a number that it should not."""
    from riva_speech.servicemaker.checkpoint import unpack  # noqa: PLC0415 - beside its use
    from riva_speech.servicemaker.families import models  # noqa: PLC0415 - as above

    contents, folder = tmp_path / "contents", tmp_path / "out"
    contents.mkdir()
    folder.mkdir()
    (contents / CONFIG).write_text(yaml.safe_dump({**TRANSDUCER, **changes}))
    (contents / WEIGHTS).write_bytes(b"pickle")
    with tarfile.open(tmp_path / "m.nemo", "w") as tar:
        for name in (CONFIG, WEIGHTS):
            tar.add(contents / name, arcname=f"./{name}")
    checkpoint = unpack(tmp_path / "m.nemo", folder)

    with pytest.raises(SpeechError) as caught:
        models.trusted_config(checkpoint)

    assert said in caught.value.message


def test_training_s_parts_do_not_reach_nemo(tmp_path: Path) -> None:
    """Data sets, augmentations and optimisers of a checkpoint are never looked at."""
    from riva_speech.servicemaker.checkpoint import Checkpoint  # noqa: PLC0415 - beside its use
    from riva_speech.servicemaker.families import models  # noqa: PLC0415 - as above

    training = {name: {"_target_": "os.system"} for name in ("train_ds", "spec_augment", "optim")}
    joint = {**TRANSDUCER["joint"], "fuse_loss_wer": True}
    config = {**TRANSDUCER, **training, "joint": joint}

    trusted = models.trusted_config(Checkpoint(tmp_path / "m.nemo", tmp_path, config))

    assert "os.system" not in str(trusted)
    assert "fuse_loss_wer" not in trusted["joint"]
