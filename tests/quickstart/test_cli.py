from __future__ import annotations

import json
import os
import pty
import re
import select
import shlex
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import quickstart
from quickstart import catalog

if TYPE_CHECKING:
    from .conftest import CommandLine

HEAVY = {"docker", "ngcsdk", "requests", "grpc", "riva", "rich", "dotenv", "numpy", "onnxruntime"}
VERBS = ("init", "start", "status", "stop", "clean", "logs", "transcribe", "config")


def test_help_imports_nothing_heavy(bare: CommandLine) -> None:
    """`riva-qs --help` imports neither docker, ngcsdk, requests nor grpc."""
    script = (
        "import sys; sys.argv = ['riva-qs', '--help']\n"
        "from quickstart.cli import main\n"
        "try: main()\n"
        "finally: print({m.split('.')[0] for m in sys.modules}, file=sys.stderr)\n"
    )
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, env=bare.environment, capture_output=True, text=True, check=True)
    imported = set(re.findall(r"'(\w+)'", done.stderr))
    assert "typer" in imported
    assert not imported & HEAVY


def test_an_interrupt_comes_before_anything_is_imported(bare: CommandLine, tmp_path: Path) -> None:
    """Ctrl-C in the first moments ends with 130 and a sentence, as it does later."""
    (tmp_path / "typer.py").write_text("raise KeyboardInterrupt")
    bare.environment["PYTHONPATH"] = f"{tmp_path}:{bare.environment.get('PYTHONPATH', '')}"
    done = bare("status")
    assert (done.returncode, done.stderr) == (130, "error: interrupted\n")


REWORDED_INTERRUPT = """
import os, signal, sys
try:
    os.kill(os.getpid(), signal.{signal})
except KeyboardInterrupt as error:
    try:
        raise ImportError("initialization failed") from error
    except ImportError as other:
        raise ImportError("it cannot be loaded") from other
"""


@pytest.mark.parametrize(
    ("module", "signal", "said"),
    [
        ("typer", "SIGINT", "interrupted"),
        ("dotenv", "SIGINT", "interrupted"),
        ("dotenv", "SIGTERM", "stopped by SIGTERM"),
    ],
)
def test_an_interrupt_that_an_extension_module_rewords_is_one_still(
    bare: CommandLine, tmp_path: Path, module: str, signal: str, said: str
) -> None:
    """In the midst of an import a request to stop ends with its code, however it is reworded."""
    (tmp_path / f"{module}.py").write_text(REWORDED_INTERRUPT.format(signal=signal))
    bare.environment["PYTHONPATH"] = f"{tmp_path}:{bare.environment.get('PYTHONPATH', '')}"
    (bare.folder / "config.env").write_text("")
    done = bare("config", "show")
    assert (done.returncode, done.stderr) == (130, f"error: {said}\n")


def test_help_names_every_verb(bare: CommandLine) -> None:
    """Help, asked for or not, lists the verbs on stdout."""
    for arguments in ([], ["--help"]):
        done = bare(*arguments)
        assert done.returncode == 0
        assert all(re.search(rf"(?m)^  {verb} ", done.stdout) for verb in VERBS)


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help(bare: CommandLine, verb: str) -> None:
    """Each verb explains itself."""
    assert bare(verb, "--help").stdout.startswith(f"Usage: riva-qs {verb}")


def test_version_is_one_line(bare: CommandLine) -> None:
    """`--version` prints the version of the distribution."""
    assert bare("--version").stdout == f"riva-qs {quickstart.__version__}\n"


def test_completion_knows_the_verbs(bare: CommandLine) -> None:
    """The shell completes verbs."""
    done = bare(_RIVA_QS_COMPLETE="complete_bash", COMP_WORDS="riva-qs st", COMP_CWORD="1")
    assert set(done.stdout.split()) == {"start", "status", "stop"}
    # Which shell it is for, typer finds among the processes that lead to it.
    in_bash = f"{shlex.join(bare.command('--show-completion'))}; true"
    shown = subprocess.run(
        ["bash", "-c", in_bash],
        cwd=bare.folder,
        env=bare.environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "_RIVA_QS_COMPLETE" in shown.stdout


@pytest.mark.parametrize(
    "arguments",
    [
        ["bogus"],
        ["init", "--bogus"],
        ["transcribe"],
        ["logs", "--tail", "few"],
        ["logs", "--tail", "-1"],
        ["logs", "--since", "yesterday"],
        ["config"],
        ["-c", "missing.env", "status"],
        ["--set", "bakend=auto", "status"],
        ["--set", "riva_speech_api_port=many", "start"],
        ["transcribe", "missing.wav"],
        ["transcribe", "."],
        ["transcribe", str(catalog.sample()), "--model", "\udcff"],
    ],
)
def test_wrong_usage_is_one_error(bare: CommandLine, arguments: list[str]) -> None:
    """A wrong call exits 2 with an error and a hint on stderr, and nothing on stdout."""
    done = bare(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: ")
    assert "hint: " in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "arguments", [["bogus"], ["status", "--x"], ["transcribe", "no.wav"], ["logs", "-f"]]
)
def test_an_error_is_an_object_under_json(bare: CommandLine, arguments: list[str]) -> None:
    """Under --json an error is one object on stderr, with the exit code in it."""
    done = bare("--json", *arguments)
    assert done.stdout == ""
    error = json.loads(done.stderr)["error"]
    assert error.keys() == {"code", "type", "message", "hint"}
    assert (error["code"], error["type"]) == (done.returncode, "UsageError")


def test_config_show_tells_where_values_come_from(bare: CommandLine) -> None:
    """`config show --origin` names file and line, variable, flag or default, and hides secrets."""
    (bare.folder / "config.env").write_text("\nasr_acoustic_model=mine\nMODEL_DEPLOY_KEY=sesame\n")
    bare.options = ["--set", "riva_timeout_sec=7"]
    done = bare("config", "show", "--origin", RIVA_QS_BACKEND="embedded")
    lines = done.stdout.splitlines()
    assert "asr_acoustic_model=mine  # config.env:2" in lines
    assert "riva_timeout_sec=7  # --set" in lines
    assert "backend=embedded  # environment RIVA_QS_BACKEND" in lines
    assert "asr_language_code=en-US  # default" in lines
    assert "MODEL_DEPLOY_KEY=********  # config.env:3" in lines
    data = bare.json("config", "show")
    assert data["settings"]["riva_timeout_sec"] == {"value": 7, "origin": "--set"}
    assert "sesame" not in str(data)


def test_config_validate_knows_the_models(bare: CommandLine) -> None:
    """`config validate` refuses models that nobody offers, and names those that will be fetched."""
    bare.options = ["--set", "image=riva", "--set", "riva_target_gpu_family=non-tegra"]
    data = bare.json("config", "validate")
    assert data["models"][0] == "nvidia/riva/rmir_asr_conformer_en_us_str:2.19.0"
    done = bare("--set", "asr_language_code=en-US de-DE", "config", "validate")
    assert (done.returncode, "knows en-US only, not de-DE" in done.stderr) == (0, True)
    done = bare("--set", "asr_acoustic_model=conformr", "config", "validate")
    assert done.returncode == 2
    assert "did you mean conformer?" in done.stderr


def test_config_diff_shows_what_differs(bare: CommandLine) -> None:
    """`config diff` compares with the defaults, or with another file."""
    (bare.folder / "config.env").write_text("riva_timeout_sec=7\n")
    (bare.folder / "other.env").write_text("riva_timeout_sec=8\n")
    lines = bare("config", "diff").stdout.splitlines()
    assert lines == ["-riva_timeout_sec=300", "+riva_timeout_sec=7  # config.env:1"]
    lines = bare("config", "diff", "other.env").stdout.splitlines()
    assert lines == ["-riva_timeout_sec=8", "+riva_timeout_sec=7  # config.env:1"]
    data = bare.json("config", "diff", "other.env")
    row = {"value": 7, "other": 8, "origin": "config.env:1"}
    assert data["differences"] == {"riva_timeout_sec": row}
    assert bare("config", "diff", "missing.env").returncode == 2


def test_config_schema_is_json(bare: CommandLine) -> None:
    """`config schema` prints the schema itself, with --json within the object of all verbs."""
    schema = json.loads(bare("config", "schema").stdout)
    assert schema["properties"]["image"]["enum"] == ["open", "riva"]
    assert bare.json("config", "schema")["schema"] == schema


def test_config_import_prints_or_writes(bare: CommandLine) -> None:
    """`config import` prints a config.env that holds, or writes it and replaces nothing."""
    sample = Path(__file__).parents[1] / "data" / "config_sh" / "2.16.0-l4t.sh"
    (bare.folder / "config.sh").write_bytes(sample.read_bytes())
    done = bare("config", "import", "config.sh")
    assert done.returncode == 0
    assert "asr_acoustic_model=parakeet_1.1b" in done.stdout.splitlines()
    assert "warning: not taken over: line " in done.stderr
    written = bare("config", "import", "config.sh", "-o", "config.env")
    assert (written.returncode, written.stdout) == (0, "")
    assert (bare.folder / "config.env").read_text() == done.stdout
    assert bare("config", "validate").returncode == 0
    assert bare("config", "import", "config.sh", "-o", "config.env").returncode == 2
    assert bare("config", "import", "config.sh", "-o", "config.env", "--force").returncode == 0
    data = bare.json("config", "import", "config.sh")
    assert data["version"] == "2.16.0"
    assert data["values"]["riva_tegra_platform"] == "xavier"
    assert len(data["notes"]) == 1


def test_config_import_of_something_else(bare: CommandLine) -> None:
    """What is no config.sh is one error, and no file is written."""
    (bare.folder / "x.sh").write_text('echo "never closed')
    done = bare("config", "import", "x.sh", "-o", "out.env")
    assert done.returncode == 2
    assert done.stderr.startswith("error: x.sh:1: this is no config.sh")
    assert not (bare.folder / "out.env").exists()


def test_config_validate_reports_all_problems(bare: CommandLine) -> None:
    """`config validate` exits 0 on a good file, and lists every problem of a bad one."""
    file = bare.folder / "config.env"
    file.write_text("backend=auto\n")
    assert bare("config", "validate").stdout == "config.env: no problem; 1 keys are set\n"
    file.write_text("bakend=auto\nriva_timeout_sec=soon\n")
    done = bare("config", "validate")
    assert done.returncode == 2
    assert "config.env:1: " in done.stderr
    assert "config.env:2: " in done.stderr


def test_the_example_is_a_valid_configuration(bare: CommandLine) -> None:
    """What `config example` prints is accepted as it is."""
    (bare.folder / "config.env").write_text(bare("config", "example").stdout)
    assert bare("config", "validate").returncode == 0


def test_a_reader_that_leaves_is_no_error(bare: CommandLine) -> None:
    """When stdout is closed early, riva-qs ends quietly."""
    reader, writer = os.pipe()
    os.close(reader)
    for arguments in (["config", "example"], ["--json", "config", "show"], ["--help"]):
        done = subprocess.run(
            bare.command(*arguments),
            env=bare.environment,
            stdout=writer,
            stderr=subprocess.PIPE,
            check=False,
        )
        assert b"Traceback" not in done.stderr
        assert (done.returncode, done.stderr) == (int("--help" in arguments), b"")
    os.close(writer)


@pytest.mark.parametrize(("backend", "kind"), [("docker", "UnsupportedError")])
def test_the_seam_of_a_backend_is_honest(bare: CommandLine, backend: str, kind: str) -> None:
    """A backend that is not built yet says so with exit code 5, and what to use instead."""
    bare.options = ["--json", "--set", f"backend={backend}"]
    for verb in ("init", "start", "status", "stop", "logs"):
        done = bare(verb)
        error = json.loads(done.stderr)["error"]
        assert (done.returncode, error["type"]) == (5, kind)
        assert "backend=embedded" in error["hint"]


def _site_without(folder: Path, *left_out: str) -> str:
    """Make a copy, of links, of the installed packages without some of them."""
    for entry in Path(sysconfig.get_paths()["purelib"]).iterdir():
        if not entry.name.startswith(("quickstart", *left_out)) and entry.suffix != ".pth":
            (folder / entry.name).symlink_to(entry)
    # An editable installation has a folder of that name with the images' files, and no package.
    (folder / "quickstart").symlink_to(Path(quickstart.__file__).parent)
    return str(folder)


@pytest.mark.parametrize(
    ("verb", "left_out", "extra"),
    [("init", "onnxruntime", "engine"), ("transcribe", "riva", "client")],
)
def test_a_missing_extra_is_named(
    bare: CommandLine, recording: Path, verb: str, left_out: str, extra: str
) -> None:
    """Without the packages of an extra, the error gives the command that installs them."""
    site = bare.folder / "site"
    site.mkdir()
    bare.environment["PYTHONPATH"] = _site_without(site, left_out)
    arguments = [verb, str(recording)] if verb == "transcribe" else [verb]
    command = [sys.executable, "-S", *bare.command(*arguments)[1:]]
    done = subprocess.run(
        command, env=bare.environment, capture_output=True, text=True, check=False, cwd=bare.folder
    )
    assert done.returncode == 5, done.stderr
    assert f"pip install 'riva-qs[{extra}]'" in done.stderr


def test_a_terminal_gets_colours_unless_unwanted(bare: CommandLine) -> None:
    """On a terminal errors are coloured, and with NO_COLOR they are plain."""
    assert "\x1b[31merror:" in _on_a_terminal(bare, TERM="xterm")
    assert "\x1b" not in _on_a_terminal(bare, TERM="xterm", NO_COLOR="1")
    assert "\x1b" not in _on_a_terminal(bare, TERM="dumb")


def _on_a_terminal(bare: CommandLine, **environment: str) -> str:
    """Return what a failing call prints on a terminal."""
    ours, theirs = pty.openpty()
    child = subprocess.Popen(
        bare.command("bogus"), env={**bare.environment, **environment}, stdout=theirs, stderr=theirs
    )
    os.close(theirs)
    text = b""
    while select.select([ours], [], [], 100)[0]:
        try:
            text += os.read(ours, 4096)
        except OSError:  # noqa: PERF203 - the end of a terminal is an error
            break
    child.wait()
    os.close(ours)
    return text.decode()


def test_a_poor_encoding_is_no_failure(bare: CommandLine) -> None:
    """What stdout's encoding lacks is escaped."""
    (bare.folder / "config.env").write_text("asr_acoustic_model=größer\n", encoding="utf-8")
    done = bare("config", "show", PYTHONIOENCODING="ascii")
    assert "asr_acoustic_model=gr\\xf6\\xdfer" in done.stdout


def test_help_is_quick() -> None:
    """`riva-qs --help` takes at most twice as long as importing typer, side by side.

    What else runs may hit the one more than the other, though not again and again.
    """
    ratios: list[float] = []
    while not ratios or (min(ratios) > 2 and len(ratios) < 5):
        ratios.append(_ratio_of_help())
    assert min(ratios) <= 2, ratios


def _ratio_of_help() -> float:
    """Return how many times as long as the import `riva-qs --help` takes."""
    script = Path(__file__).parents[2] / "benchmarks" / "help_time.py"
    command = [sys.executable, str(script), "7"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    ratio = re.search(r"takes ([\d.]+) times", done.stdout)
    assert ratio is not None
    return float(ratio[1])
