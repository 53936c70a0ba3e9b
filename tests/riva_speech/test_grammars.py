"""What riva-build and nemo2riva understand, and what they refuse by name."""

from __future__ import annotations

import tarfile
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from riva_speech.errors import SpeechError, UnsupportedError, UsageError
from riva_speech.servicemaker import conversion, hydra, nemo2riva
from riva_speech.servicemaker.checkpoint import CONFIG, WEIGHTS
from support.programs import run, succeed

if TYPE_CHECKING:
    from pathlib import Path

BUILD = ("riva-build", "speech_recognition")
HYDRA = ("riva-build", "--config-path=pkg://servicemaker.configs.asr")
NAMED = ("--config-name=offline", "output_path=out.rmir")


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


@pytest.mark.parametrize("context", [(280, 139), (-1, 69), (70, -1), (0, 0)])
def test_how_far_a_checkpoint_looks_may_be_given_inline(context: tuple[int, int]) -> None:
    """What nemo2riva takes as two words is a list in the newer grammar, and arrives there whole."""
    written = f"{{offline_context: {list(context)}, decoder: rnnt, max_dim: 1000}}"
    command = hydra.translate(
        [*HYDRA[1:], *NAMED, f"source_path=[{{path: m.nemo, nemo2riva: {written}}}]"]
    )

    words = hydra.options_of_nemo2riva(command.conversions["m.nemo"])

    chosen = nemo2riva.options_of(nemo2riva.parse(["m.nemo", *words]))
    assert chosen.offline_context == context
    assert (chosen.decoder, chosen.max_dim) == ("rnnt", 1000)


@pytest.mark.parametrize(
    "value",
    ["280", "'280 139'", "[]", "[280]", "[280, 139, 1]", "[280, -2]", "[280, 1.5]", "[a, b]",
     "[true, 0]", "[280, null]", "[[280, 139]]", "{left: 280}", "null"],
)  # fmt: skip
def test_what_is_no_context_is_refused_inline(value: str) -> None:
    """Anything but two numbers of steps is told in one sentence, with what to write instead."""
    source = f"source_path=[{{path: m.nemo, nemo2riva: {{offline_context: {value}}}}}]"

    with pytest.raises(UsageError, match="no pair of encoder steps") as caught:
        hydra.translate([*HYDRA[1:], *NAMED, source])

    assert "offline_context: [LEFT, RIGHT]" in (caught.value.hint or "")


@pytest.mark.parametrize("value", ["[1000, 2000]", "[1000]", "{frames: 1000}"])
def test_other_settings_of_a_conversion_are_single_values(value: str) -> None:
    """A list for an option of one value is told by the option's name."""
    source = f"source_path=[{{path: m.nemo, nemo2riva: {{max_dim: {value}}}}}]"

    with pytest.raises(UsageError, match=r"max_dim: .* is no single value"):
        hydra.translate([*HYDRA[1:], *NAMED, source])


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


def test_the_newer_grammar_knows_a_pipeline_that_is_not_there_yet() -> None:
    """Whatever its configuration is called, it is refused as in the older grammar."""
    words = ["--config-path=pkg://servicemaker.configs.tts", "--config-name=fastpitch_hifigan"]

    with pytest.raises(UnsupportedError, match=r"speech_synthesis .* waits for FastPitch"):
        hydra.translate(words)


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
    chosen = options(decoder="rnnt", max_dim=1000, offline_context=(-1, 69))

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
    """Data sets, augmentations and optimisers of a checkpoint are never looked at.

    Nor is in how many pieces it was to be convolved.
    """
    from riva_speech.servicemaker.checkpoint import Checkpoint  # noqa: PLC0415 - beside its use
    from riva_speech.servicemaker.families import models  # noqa: PLC0415 - as above

    training = {name: {"_target_": "os.system"} for name in ("train_ds", "spec_augment", "optim")}
    joint = {**TRANSDUCER["joint"], "fuse_loss_wer": True}
    encoder = {**TRANSDUCER["encoder"], "subsampling_conv_chunking_factor": -1}
    config = {**TRANSDUCER, **training, "encoder": encoder, "joint": joint}

    trusted = models.trusted_config(Checkpoint(tmp_path / "m.nemo", tmp_path, config))

    assert "os.system" not in str(trusted)
    assert "fuse_loss_wer" not in trusted["joint"]
    assert trusted["encoder"] == TRANSDUCER["encoder"]
