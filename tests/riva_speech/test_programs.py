"""riva-build and riva-deploy as a user runs them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import numpy as np
import pytest

from riva_speech import program
from riva_speech.archive import open_archive
from riva_speech.asr.loading import load_recognizers
from riva_speech.asr.offline import OfflineRecognizer
from riva_speech.repository import list_models, read_config
from riva_speech.servicemaker import nemo2riva
from support.audio import babble
from support.programs import MODULES, run, succeed

if TYPE_CHECKING:
    from pathlib import Path

BUILD = ("riva-build", "speech_recognition")


def contents(folder: Path) -> dict[str, bytes]:
    """Return every file below a folder."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_building_refuses_to_overwrite(tmp_path: Path, tiny_riva: Path) -> None:
    """An existing RMIR stays unless -f or --force says otherwise."""
    target = tmp_path / "out.rmir"
    target.write_bytes(b"precious")

    refused = run(*BUILD, target, tiny_riva)

    assert refused.returncode == 2
    assert f"error: {target} already exists" in refused.stderr
    assert "hint: pass -f or --force" in refused.stderr
    assert target.read_bytes() == b"precious"
    for flag in ("-f", "--force"):
        succeed(*BUILD, flag, target, tiny_riva)
        target.write_bytes(b"precious")
    succeed(*BUILD, target, tiny_riva, "-f")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--chunk_size=0.5"], "not a multiple"),
        (["--chunk_size=0.32"], "choose one of 0.16, 0.56"),
        (["--ms_per_timestep=40"], "this model's is 80"),
        (["--streaming=False"], "nothing to build"),
        (["--offline", "--chunk_size=400"], "longer than the model's 600 steps"),
        (["--name=a/b"], "cannot be the name"),
        (["--endpointing.stop_th=7"], "thresholds are shares"),
        (["--endpointing.stop_th=nan"], "thresholds are shares"),
        (["--endpointing.stop_history=-1"], "windows are 0 to"),
        (["--decoder_type=flashlight"], "takes its words from one of"),
        (["--decoder_type=kaldi"], "kaldi is not supported"),
        (["--decoding_vocab=words"], "--decoding_vocab needs --decoder_type=flashlight"),
        (["--nemo_decoder.language_model_alpha=0.5"], "RNN-T and TDT"),
        (["--flashlight_decoder.max_batch_size=8"], "decoded by itself"),
        (["--no_such_option=1"], "unrecognized"),
    ],
)
def test_options_that_do_not_fit_are_refused(
    tmp_path: Path, tiny_riva: Path, options: list[str], said: str
) -> None:
    """A wrong option is a usage error that says what would be right, and writes nothing."""
    done = run(*BUILD, tmp_path / "out.rmir", tiny_riva, *options)

    assert done.returncode == 2
    assert said in done.stderr
    assert not list(tmp_path.iterdir())


def test_a_look_ahead_is_chosen_by_its_chunk_size(tmp_path: Path, tiny_riva: Path) -> None:
    """One .riva holds every look-ahead of the checkpoint; the build picks one."""
    for size, right in ((0.16, 1), (0.56, 6)):
        rmir, repository = tmp_path / f"{size}.rmir", tmp_path / f"models-{size}"
        succeed(*BUILD, rmir, tiny_riva, f"--chunk_size={size}")
        succeed("riva-deploy", rmir, repository)

        (recognizer,) = load_recognizers(repository)

        assert recognizer.config.streaming.att_context_size == (70, right)


def test_a_look_ahead_may_be_chosen_where_both_are_built(tmp_path: Path, tiny_riva: Path) -> None:
    """A chunk size that is a look-ahead is for streams, and whole utterances keep theirs."""
    both = ("--offline", "--streaming=True")
    for size, streaming, offline in ((0.16, 0.16, 28.0), (8.0, 0.56, 8.0)):
        rmir = tmp_path / f"{size}.rmir"
        succeed(*BUILD, rmir, tiny_riva, f"--chunk_size={size}", *both)

        with open_archive(rmir, kind="rmir") as archive:
            chunks = {one["type"]: one["chunk_size"] for one in archive.metadata["pipelines"]}

        assert chunks == {"online": streaming, "offline": offline}


def test_a_long_recording_is_encoded_as_in_one_run(tmp_path: Path, tiny_riva: Path) -> None:
    """In pieces with more context than the model looks back, every step is that of one run."""
    builds = {"whole": [], "pieces": ["--chunk_size=5.6", "--padding_size=11.2"]}
    found = []
    for name, options in builds.items():
        rmir, repository = tmp_path / f"{name}.rmir", tmp_path / name
        succeed(*BUILD, rmir, tiny_riva, "--offline", *options)
        succeed("riva-deploy", rmir, repository)
        (recognizer,) = load_recognizers(repository)
        assert isinstance(recognizer, OfflineRecognizer)
        found.append(recognizer.log_probs(recognizer.log_mel(babble(24.3))))

    np.testing.assert_allclose(found[1], found[0], atol=1e-3)


def test_keys_travel_with_the_files(tmp_path: Path, tiny_riva: Path) -> None:
    """file:key seals what is written and opens what is read; a key may come by environment."""
    sealed = tmp_path / "sealed.rmir"
    succeed(*BUILD, f"{sealed}:secret", tiny_riva)

    without = run("riva-deploy", sealed, tmp_path / "none")
    wrong = run("riva-deploy", f"{sealed}:guess", tmp_path / "none")
    succeed("riva-deploy", f"{sealed}:secret", tmp_path / "by-name")
    environment = {**os.environ, "MODEL_DEPLOY_KEY": "secret"}
    by_environment = run("riva-deploy", sealed, tmp_path / "by-environment", env=environment)
    (tmp_path / "key").write_text("secret\n")
    hidden = f"{tmp_path / 'hidden.rmir'}:file:{tmp_path / 'key'}"
    succeed(*BUILD, hidden, tiny_riva)
    succeed("riva-deploy", hidden, tmp_path / "by-file")

    assert (without.returncode, wrong.returncode, by_environment.returncode) == (9, 9, 0)
    assert "no key was given" in without.stderr
    assert "another key" in wrong.stderr
    assert contents(tmp_path / "by-name") == contents(tmp_path / "by-environment")
    assert contents(tmp_path / "by-name") == contents(tmp_path / "by-file")
    for done in (without, wrong, by_environment):
        assert "secret" not in done.stderr
        assert "guess" not in done.stderr


def test_a_repository_is_complete_and_reported(tmp_path: Path, tiny_rmir: Path) -> None:
    """Every model has a configuration of its name, and the report lists what clients ask for."""
    repository, report = tmp_path / "models", tmp_path / "report.json"

    succeed("riva-deploy", tiny_rmir, repository, "--report", report)

    models = json.loads(report.read_text())["models"]
    assert [(one["name"], one["type"]) for one in models] == [
        ("tiny-streaming", "online"),
        ("tiny-offline", "offline"),
    ]
    assert sorted(name for one in models for name in one["directories"]) == list_models(repository)
    assert {read_config(repository / name).backend for name in list_models(repository)} == {
        "onnxruntime",
        "python",
    }
    assert {path.name[0] for path in repository.iterdir()}.isdisjoint(".")


def test_a_repository_can_be_moved(tmp_path: Path, tiny_repository: Path) -> None:
    """No path is written into a repository: a copy elsewhere serves."""
    moved = tmp_path / "elsewhere" / "models"
    shutil.copytree(tiny_repository, moved)

    assert len(load_recognizers(moved)) == 2
    assert not any(str(tiny_repository).encode() in data for data in contents(moved).values())


def test_weights_are_stored_once(tiny_repository: Path) -> None:
    """All graphs of one RMIR share one file of weights."""
    files = list(tiny_repository.glob("*/1/model_weights.bin"))

    assert len(files) == 3
    assert all(file.samefile(files[0]) for file in files)


def test_deploying_again_skips_or_replaces(tmp_path: Path, tiny_rmir: Path) -> None:
    """A deployed model stays unless -f is given; the official tool's line says so."""
    repository = tmp_path / "models"
    succeed("riva-deploy", tiny_rmir, repository)
    marker = repository / "tiny-offline-asr-bls-ensemble" / "1" / "marker"
    marker.touch()

    again = succeed("riva-deploy", tiny_rmir, repository)
    assert "already exists, skipping deployment.  To force deployment rerun with -f" in again.stderr
    assert marker.exists()

    succeed("riva-deploy", "-f", tiny_rmir, repository)
    assert not marker.exists()


def test_two_pipelines_of_one_name_are_refused(tmp_path: Path, tiny_rmir: Path) -> None:
    """An RMIR never silently takes the place of another one's model."""
    twin = tmp_path / "twin.rmir"
    shutil.copy(tiny_rmir, twin)

    done = run("riva-deploy", tiny_rmir, twin, tmp_path / "models")

    assert done.returncode == 2
    assert "another --name" in done.stderr


def test_a_folder_is_deployed_with_the_options_of_one_pipeline(
    tmp_path: Path, tiny_rmir: Path
) -> None:
    """deploy_all_models takes what riva-deploy takes, and does with it what that does."""
    folder, report = tmp_path / "rmir", tmp_path / "report.json"
    folder.mkdir()
    shutil.copy(tiny_rmir, folder / "tiny.rmir")
    options = ("--triton_backend=python", "--report", report)

    succeed("deploy_all_models", *options, folder, tmp_path / "all")
    succeed("riva-deploy", "--triton_backend=python", tiny_rmir, tmp_path / "one")

    assert contents(tmp_path / "all") == contents(tmp_path / "one")
    assert {model["rmir"] for model in json.loads(report.read_text())["models"]} == {"tiny.rmir"}


def test_a_folder_without_pipelines_is_named(tmp_path: Path) -> None:
    """There is nothing to deploy: exit 3, with the folder and what belongs there."""
    done = run("deploy_all_models", "--precision=int8", tmp_path, tmp_path / "models")

    assert done.returncode == 3
    assert f"error: {tmp_path} holds no .rmir" in done.stderr


def test_a_failed_deploy_leaves_what_was_there(
    tmp_path: Path, tiny_rmir: Path, tiny_repository: Path
) -> None:
    """A damaged RMIR changes nothing in a repository."""
    repository, damaged = tmp_path / "models", tmp_path / "damaged.rmir"
    shutil.copytree(tiny_repository, repository)
    before = contents(repository)
    data = bytearray(tiny_rmir.read_bytes())
    data[-20_000] ^= 0xFF
    damaged.write_bytes(data)

    done = run("riva-deploy", "-f", damaged, repository)

    assert done.returncode == 9
    assert "error:" in done.stderr
    assert "Traceback" not in done.stderr
    assert contents(repository) == before


def test_a_terminated_deploy_clears_away_what_it_began(tmp_path: Path, tiny_rmir: Path) -> None:
    """SIGTERM in the midst of a deploy leaves whole models only, and no staging folder."""
    repository = tmp_path / "models"
    command = [sys.executable, "-m", MODULES["riva-deploy"], str(tiny_rmir), str(repository)]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        while process.poll() is None and not list(repository.glob(".deploying-*")):
            pass
        process.terminate()

    assert process.returncode in (0, 130)
    assert not list(repository.glob(".*"))
    assert all(read_config(path).name == path.name for path in repository.iterdir())


def test_an_interrupt_that_an_extension_module_rewords_is_one_still(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A program interrupted in the midst of a late import says so, and leaves no traceback."""

    def body() -> None:
        raise ImportError("initialization failed") from KeyboardInterrupt()

    assert program.run(body) == program.INTERRUPTED
    assert capsys.readouterr().err == "error: interrupted\n"


@pytest.mark.parametrize(
    ("arguments", "key"),
    [
        (["--out", "out.riva:secret"], "secret"),
        (["--out", "out", "--key", "secret"], "secret"),
        (["--out", "out.riva:secret", "--key", "secret"], "secret"),
        (["--out", "out.riva"], None),
    ],
)
def test_a_key_for_nemo2riva_stands_in_either_place(
    tmp_path: Path, arguments: list[str], key: str | None
) -> None:
    """file:key and --key seal alike, and the output ends in .riva."""
    chosen = nemo2riva.parse([str(tmp_path / "model.nemo"), *arguments])

    options = nemo2riva.options_of(chosen)

    assert (options.out.name, options.key) == ("out.riva", key)


def test_a_key_may_lie_in_a_file(tmp_path: Path) -> None:
    """--key takes the name of a file that holds the key."""
    (tmp_path / "key").write_text("secret\n")

    chosen = nemo2riva.parse(["model.nemo", "--key", str(tmp_path / "key")])

    assert nemo2riva.options_of(chosen).key == "secret"


def test_two_different_keys_are_refused(tmp_path: Path) -> None:
    """It is never a guess which key seals a file."""
    done = run("nemo2riva", tmp_path / "model.nemo", "--out", "out.riva:one", "--key", "two")

    assert done.returncode == 2
    assert "different keys" in done.stderr


@pytest.mark.parametrize("program", ["nemo2riva", "riva-deploy"])
def test_missing_files_are_named(tmp_path: Path, program: str) -> None:
    """A path with nothing behind it is exit 3, with the path."""
    target = [tmp_path / "models"] if program == "riva-deploy" else []

    done = run(program, tmp_path / "nothing.x", *target)

    assert done.returncode == 3
    assert f"error: there is no file {tmp_path / 'nothing.x'}" in done.stderr


def test_an_unwritable_output_is_an_error_of_one_line(tmp_path: Path, tiny_riva: Path) -> None:
    """An operating-system error names the file and carries no traceback."""
    done = run(*BUILD, tmp_path / "missing" / "out.rmir", tiny_riva)

    assert done.returncode == 2
    assert done.stderr.startswith("error: cannot write")
    assert "Traceback" not in done.stderr


def test_build_deploy_and_serve_need_neither_nemo_nor_torch() -> None:
    """What runs in production never imports what trained the model."""
    code = (
        "import sys, riva_speech.servicemaker.riva_build, riva_speech.servicemaker.riva_deploy, "
        "riva_speech.server.grpc_server; "
        "print([m for m in ('torch', 'nemo', 'onnx', 'quickstart') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout == "[]\n"


INTERRUPTED_IMPORT = """
import os, signal, sys
from riva_speech import programs

class Impatient:
    def find_spec(self, name, path=None, target=None):
        if name.startswith("riva_speech."):
            try:
                os.kill(os.getpid(), signal.SIGINT)
            except KeyboardInterrupt as error:
                if sys.argv[2] == "plain":
                    raise
                raise ImportError("initialization failed") from error

sys.meta_path.insert(0, Impatient())
getattr(programs, sys.argv[1])()
"""


@pytest.mark.parametrize("name", ["nemo2riva", "riva_build", "riva_deploy", "start_riva"])
@pytest.mark.parametrize("how", ["plain", "as an extension module rewords it"])
def test_an_interrupt_while_a_program_is_imported_is_no_traceback(name: str, how: str) -> None:
    """Ctrl-C before a program has begun ends it as any later one does."""
    command = [sys.executable, "-c", INTERRUPTED_IMPORT, name, how]

    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    assert (ended.returncode, ended.stdout, ended.stderr) == (130, "", "")
