"""Official `config.sh` files, rebuilt by hand from what is known of each version."""

from __future__ import annotations

import os
import stat
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quickstart import catalog, legacy
from quickstart.config import Loaded, Settings, load
from quickstart.errors import UsageError
from quickstart.legacy import evaluation, parser
from quickstart.legacy.expansion import TAINT
from quickstart.legacy.tokens import ScriptError

SAMPLES = sorted((Path(__file__).parents[1] / "data" / "config_sh").glob("*.sh"))
SAMPLE = {path.stem: path for path in SAMPLES}
OFFICIAL = SAMPLE["2.19.0"].read_text()
SERVICES = ("asr", "nlp", "tts", "nmt")


@pytest.fixture(autouse=True)
def in_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def imported(text: str | bytes, name: str = "config.sh") -> legacy.Imported:
    path = Path(name)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return legacy.import_config(path)


def loaded(text: str) -> Loaded:
    Path("imported.env").write_text(text + "\n")
    return load(Path("imported.env"), environ={})


def edited(**given: str) -> str:
    """Return the 2.19.0 sample with other values, as its owner would edit it."""
    lines = OFFICIAL.splitlines()
    for name, value in given.items():
        at = next(i for i, line in enumerate(lines) if line.startswith(f"{name}="))
        lines[at] = f"{name}={value}"
    return "\n".join(lines)


def values_of(text: str) -> dict[str, Any]:
    return evaluation.evaluate(parser.parse(text), Path("/here")).values


def bash(path: Path) -> dict[str, str]:
    """Return what a real shell makes of a script."""
    names = [f"models_{s}" for s in SERVICES]
    show = "; ".join(f'echo "{name}=${{{name}[*]}}"' for name in names)
    plain = ["riva_model_loc", "image_speech_api", "NGC_TARGET", "riva_daemon_client"]
    show += "; " + "; ".join(f'echo "{name}=${{{name}}}"' for name in plain)
    command = ["bash", "-c", f". {path}; {show}", str(path)]
    done = subprocess.run(command, cwd=path.parent, capture_output=True, text=True, check=True)
    return dict(line.split("=", 1) for line in done.stdout.splitlines())


@pytest.mark.parametrize("path", SAMPLES, ids=lambda path: path.stem)
def test_a_real_shell_makes_the_same_of_it(path: Path) -> None:
    """Every variable that the evaluation finds has the value that bash gives it."""
    outcome = evaluation.evaluate(parser.parse(path.read_text()), path.parent)
    for name, expected in bash(path).items():
        value = outcome.values.get(name, "")
        assert (value if isinstance(value, str) else " ".join(value)) == expected, name
    assert outcome.notes == []


@pytest.mark.parametrize("path", SAMPLES, ids=lambda path: path.stem)
def test_round_trip(path: Path) -> None:
    """What is imported loads, and asks for the models of that file, each once."""
    result = legacy.import_config(path)
    settings = loaded(result.text).settings
    expected = bash(path)
    listed = [
        reference
        for service in SERVICES
        if getattr(settings, f"service_enabled_{service}") and not settings.use_existing_rmirs
        for reference in expected[f"models_{service}"].split()
    ]
    assert [a.reference for a in catalog.wanted(settings)] == list(dict.fromkeys(listed))
    assert settings.image_speech_api == expected["image_speech_api"]
    assert settings.riva_model_loc == expected["riva_model_loc"]
    assert settings.riva_daemon_client == expected["riva_daemon_client"]
    assert result.version == path.stem.removesuffix("-l4t")


def test_defaults_of_servers_need_two_lines() -> None:
    """What is at the default of this version is not written, but for what a host decides."""
    result = imported(OFFICIAL)
    assert result.values == {"image": "riva", "riva_target_gpu_family": "non-tegra"}
    assert result.notes == ()


@pytest.mark.parametrize(
    ("stem", "noted"),
    [
        ("2.4.0-l4t", ["citrinet_1024 is gone", "image_init_speech: one image deploys"]),
        ("2.6.0", ["image_init_speech: one image deploys"]),
        ("2.12.1", ["image_init_speech: one image deploys"]),
        ("2.13.1", ["image_init_speech: one image deploys"]),
        ("2.14.0", ["image_init_speech: one image deploys"]),
        ("2.15.0", ["image_init_speech: one image deploys"]),
        ("2.16.0-l4t", ["image_init_speech: one image deploys"]),
        ("2.18.0", []),
        ("2.19.0", []),
        ("2.24.0-l4t", []),
    ],
)
def test_what_is_not_taken_over_is_told(stem: str, noted: list[str]) -> None:
    """Each version's notes name what is gone since, with the reason, and nothing else."""
    notes = legacy.import_config(SAMPLE[stem]).notes
    assert len(notes) == len(noted)
    for note, part in zip(notes, noted, strict=True):
        assert part in note
        assert note.startswith("line ")


@pytest.mark.parametrize(
    ("stem", "expected"),
    [
        ("2.4.0-l4t", {"riva_target_gpu_family": "tegra", "riva_ngc_image_version": "2.4.0"}),
        ("2.6.0", {"service_enabled_asr": "false", "use_existing_rmirs": "true"}),
        ("2.12.1", {"asr_language_code": "en-US zh-CN", "riva_ngc_model_version": "2.12.0"}),
        ("2.13.1", {"asr_acoustic_model": "conformer_unified", "tts_language_code": "de-DE es-ES"}),
        ("2.14.0", {"asr_acoustic_model": "conformer_ml_cs", "service_enabled_nmt": "true"}),
        ("2.15.0", {"asr_acoustic_model": "parakeet_0.6b"}),
        ("2.16.0-l4t", {"asr_acoustic_model": "parakeet_1.1b", "riva_tegra_platform": "xavier"}),
        ("2.18.0", {"riva_ngc_image_version": "2.18.0", "riva_ngc_model_version": "2.18.0"}),
        ("2.24.0-l4t", {"riva_tegra_platform": "thor", "tts_model": "magpie"}),
    ],
)
def test_old_names_become_new_ones(stem: str, expected: dict[str, str]) -> None:
    """Each version's own variables are found under the names of today."""
    values = legacy.import_config(SAMPLE[stem]).values
    assert {name: values.get(name) for name in expected} == expected


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"asr_language_code": '("de-DE" "es-US")'}, {"asr_language_code": "de-DE es-US"}),
        ({"asr_acoustic_model": "('parakeet_1.1b')"}, {"asr_acoustic_model": "parakeet_1.1b"}),
        ({"gpus_to_use": "'\"device=0,1\"'"}, {"gpus_to_use": '"device=0,1"'}),
        ({"riva_speech_api_port": "$((50051))"}, {}),
        ({"riva_speech_api_port": "50052 # mine"}, {"riva_speech_api_port": "50052"}),
        (
            {"riva_model_loc": "$HOME/models"},
            {"riva_model_loc": str(Path("~/models").expanduser())},
        ),
        ({"riva_model_loc": '"/data/my models"'}, {"riva_model_loc": "/data/my models"}),
        ({"use_existing_rmirs": "true"}, {"use_existing_rmirs": "true"}),
        ({"riva_ngc_team": '""'}, {"riva_ngc_team": ""}),
        ({"MODEL_DEPLOY_KEY": "'a b$c'"}, {"MODEL_DEPLOY_KEY": "********"}),
    ],
)
def test_what_its_owner_edits_is_taken_over(
    given: dict[str, str], expected: dict[str, str]
) -> None:
    """However a value is quoted, the settings have it."""
    text = edited(**{"service_enabled_nlp": "false", **given})
    result = imported(text)
    always = {
        "image": "riva",
        "riva_target_gpu_family": "non-tegra",
        "service_enabled_nlp": "false",
    }
    assert result.values == {**always, **expected}
    loaded(result.text)


def test_a_secret_is_taken_over_and_not_shown() -> None:
    """A key of one's own is in the text, masked elsewhere, and the file is for its owner."""
    result = imported(edited(MODEL_DEPLOY_KEY="'a b#$\\c\"'"))
    assert loaded(result.text).settings.model_deploy_key == 'a b#$\\c"'
    assert "a b" not in str(result.values) + str(result.notes)
    legacy.write(Path("mine.env"), result)
    assert stat.S_IMODE(Path("mine.env").stat().st_mode) == 0o600


def test_edited_arrays_become_references() -> None:
    """A list that does not follow from the other keys is taken over as it is."""
    line = '"${where}/rmir_nmt_megatron_1b_any_any:$at"'
    text = edited(service_enabled_nmt="true").replace(line, '"mine/team/rmir_x:1"')
    assert imported(text).values["models_nmt"] == "mine/team/rmir_x:1"


def test_an_uncommented_alternative_is_seen() -> None:
    """What its owner uncomments inside a loop is part of the list."""
    text = OFFICIAL.replace('#  "${where}/rmir_nlp', '"${where}/rmir_nlp').replace(
        '  #    "${where}/rmir_nlp_punctuation_bert_large', '  "${where}/rmir_nlp_punct_large'
    )
    assert "rmir_nlp_punct_large" in imported(text).values["models_nlp"]


@pytest.mark.parametrize(
    ("extra", "noted"),
    [
        ("my_own=1", "my_own: riva-qs has no such setting"),
        ("riva_speech_api_prot=1", "did you mean riva_speech_api_port?"),
        ("riva_speech_api_port=fifty", '"fifty" is not a whole number'),
        ("riva_speech_api_port=$(my_port)", "only a shell knows its value"),
        ("riva_model_loc=$RIVA_HOME/models", "only a shell knows its value"),
        ("riva_model_loc=~no-such-user/x", "a home folder that does not exist"),
        ("source ./more.sh", "another file is not read"),
        ('if docker info; then gpus_to_use="all"; fi', "only a shell can decide"),
        ('[[ -f /x ]] && gpus_to_use="all"', "what only a shell knows"),
        ("image_client=nvcr.io/x", "needs no client image"),
        ("ssl_server_cert=/a.pem", "ssl_server_cert needs ssl_server_key"),
        ('asr_acoustic_model=("a" "b")', "only the first of 2 values counts"),
        ("riva_speech_api_port=5\ufffd1", "is not UTF-8"),
        ("models_asr=($(list))", "only a shell knows its value"),
        ("eval gpus_to_use=all", "eval: it may set variables, and no command is run"),
        ("read gpus_to_use < file", "read: it may set variables, and no command is run"),
        ("models_asr=(what ever)", "the embedded catalogue has no"),
        ("exit 3", "the script itself ends here"),
    ],
)
def test_what_cannot_be_taken_over_is_told(extra: str, noted: str) -> None:
    """Each line that has no counterpart is noted with its number and the reason."""
    notes = imported(f"{OFFICIAL}\n{extra}\n").notes
    assert any(noted in note for note in notes), notes


def test_a_refusal_of_the_script_is_told() -> None:
    """Where the script itself would end with a message, the message is shown."""
    notes = imported(edited(asr_acoustic_model='("whisper_huge")')).notes
    assert any("ends here: no model is called whisper_huge" in note for note in notes)


def test_a_multilingual_model_of_2_18() -> None:
    """What had a language by habit is called multi, which is told."""
    text = SAMPLE["2.18.0"].read_text()
    text = text.replace('model=("conformer")', 'model=("whisper")')
    text = text.replace('variant=("")', 'variant=("large")')
    result = imported(text)
    assert result.values["asr_acoustic_model"] == "whisper_large"
    assert result.values["asr_language_code"] == "multi"
    assert "en-US became multi" in result.notes[0]
    found = [a.reference for a in catalog.wanted(loaded(result.text).settings)]
    assert found[0] == "nvidia/riva/rmir_asr_whisper_large_ofl:2.18.0"
    assert found[1] == "nvidia/riva/rmir_nlp_punctuation_bert_base_en_us:2.18.0"


def test_whatever_editor_wrote_it() -> None:
    """A byte-order mark, CRLF, export and comments in another encoding change nothing."""
    plain = imported(OFFICIAL).text
    assert imported("\ufeff" + OFFICIAL.replace("\n", "\r\n")).text == plain
    assert imported(OFFICIAL.encode() + b"\n# \xe9\xff\n").text == plain
    exported = OFFICIAL.replace("\nservice_", "\nexport service_")
    assert imported(exported).text == plain


def test_nothing_is_executed(tmp_path: Path) -> None:
    """No command of the script runs, whatever quoting hides it."""
    lines = [
        "touch executed",
        "x=$(touch executed)",
        "x=`touch executed`",
        'x="$(touch executed)"',
        "x=${y:-$(touch executed)}",
        "x=(a $(touch executed) b)",
        "declare -A m; m[$(touch executed)]=1",
        "if touch executed; then x=1; fi",
        "[[ $(touch executed) ]] && x=1",
        "for i in $(touch executed); do x=$i; done",
        "case $(touch executed) in *) x=1 ;; esac",
        "f() { touch executed; }; f",
        "(touch executed)",
        "touch executed | cat",
        "eval 'touch executed'",
        "x=$(echo $(touch executed))",
        "cat <<END\n$(touch executed)\nEND",
        "printf -v x '%s' $(touch executed)",
        "exec touch executed",
        "trap 'touch executed' EXIT",
        ". <(touch executed)",
    ]
    for line in lines:
        imported(f"{OFFICIAL}\n{line}\n")
    imported(OFFICIAL + "\n" + "\n".join(lines))
    assert not (tmp_path / "executed").exists()


SNIPPETS: dict[str, dict[str, Any]] = {
    "a=1; b=$a$a; c='$a'; d=\"$a\"'$a'": {"b": "11", "c": "$a", "d": "1$a"},
    "a=x-y-z; b=${a//-/_}; c=${a/-/_}; d=${a##*-}; e=${a%%-*}; f=${a#*-}; g=${a%-*}": {
        "b": "x_y_z",
        "c": "x_y-z",
        "d": "z",
        "e": "x",
        "f": "y-z",
        "g": "x-y",
    },
    "a=Ab; b=${a,,}; c=${a^^}; d=${e:-no}; f=${#a}": {"b": "ab", "c": "AB", "d": "no", "f": "2"},
    'a=("x y" z); b=${#a[@]}; c=${a[1]}; d=${a}; e="${a[*]}"': {
        "b": "2",
        "c": "z",
        "d": "x y",
        "e": "x y z",
    },
    "a=(1 2); a+=(3); b=(${a[@]} 4); a[0]=9": {"a": ["9", "2", "3"], "b": ["1", "2", "3", "4"]},
    'declare -A m=( [x]="1 2" ["y z"]=3 ); m[w]=4; a=(${m[x]}); b=${m["y z"]}': {
        "a": ["1", "2"],
        "b": "3",
    },
    'for i in a b c; do if [[ $i == b ]]; then continue; fi; l+=("$i"); done': {"l": ["a", "c"]},
    "declare -A m; m[x]=1; a=(x y); b=${m[${a[0]}]}; c=${#m[@]}": {"b": "1", "c": "1"},
    "for i in 1 2 3; do\n  if [ $i = 2 ]; then break; fi; n=$i\ndone": {"n": "1"},
    "case ab in x) r=1 ;; a*|b) r=2 ;; *) r=3 ;; esac": {"r": "2"},
    'if [[ abc == *"b"* && ! ( x == y || -z z ) ]]; then r=yes; else r=no; fi': {"r": "yes"},
    'if [[ "a*" == "a*" && ab != "a*" && ab == a* ]]; then r=yes; fi': {"r": "yes"},
    "if [ 3 -gt 2 -a -n x ]; then r=1; fi; [[ -z '' ]] && s=1 || s=2": {"r": "1", "s": "1"},
    "if [[ a == b ]]; then r=1; elif [[ a == a ]]; then r=2; else r=3; fi": {"r": "2"},
    "! [[ a == b ]] && { r=1; t=2; }": {"r": "1", "t": "2"},
    'a=one\\\ntwo; b=\'x\ny\'; c="q\\"r\\$s"': {"a": "onetwo", "b": "x\ny", "c": 'q"r$s'},
    'a=$(echo x_y_z | cut -d "_" -f 2); b=$(echo hi there)': {"a": "y", "b": "hi there"},
    "while true; do a=1; done; until false; do a=2; done; b=3": {"b": "3"},
    "f() { a=1; }\nfunction g {\n a=2\n}\nf; g; b=3": {"b": "3"},
    "cat <<'END' > x\na=1\nEND\nb=2": {"b": "2"},
    "a=1 # b=2\n#a=3\nc=x#y": {"a": "1", "c": "x#y"},
    "a=1; unset a; b=2": {"b": "2"},
    "a=x; a+=y": {"a": "xy"},
    "readonly a=1; local b=2; declare -r c=3; typeset d=4": {"d": "4"},
    "for ((i=0; i<3; i++)); do a=1; done; ((b=2)); c=3": {"c": "3"},
}


@pytest.mark.parametrize("text", SNIPPETS)
def test_the_dialect(text: str) -> None:
    """Each construct of the official files leaves behind what a shell would leave."""
    values = values_of(text)
    for name, value in SNIPPETS[text].items():
        assert values[name] == value, name


def test_a_line_is_one_of_the_script() -> None:
    """An error inside an expansion names the line of the script, not its own first one."""
    with pytest.raises(ScriptError) as caught:
        values_of('a=1\n\nb=${c:-"x}\n')
    assert caught.value.line == 3


def test_a_substitution_that_makes_no_sense_is_not_fatal() -> None:
    """What is inside $(...) is not followed, so it may be anything that ends."""
    assert values_of("a=$(echo \\`\\'x); c=1")["c"] == "1"


@pytest.mark.parametrize(
    "text",
    ["pwd", "cd x && pwd", 'cd "$(dirname "$0")" && pwd', "cd `dirname $0`; pwd"],
)
def test_the_folder_of_the_script(text: str) -> None:
    """What asks for the script's folder gets it; another change of folder is not followed."""
    value = values_of(f"a=$({text})")["a"]
    assert value == ("/here" if text == "pwd" or "dirname" in text else TAINT)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a='x", "never closed"),
        ('a="x', "never closed"),
        ("a=`x", "never closed"),
        ("a=${x", "never closed"),
        ("a=$(x", "never closed"),
        ("a=(x", "never closed"),
        ("(x", "never closed"),
        ("if x; then y", 'lacks its "fi"'),
        ("if x; y; fi", 'lacks its "then"'),
        ("for a in b; do c", 'lacks its "done"'),
        ("case a in b", "an arm"),
        ("case a in b) c", 'lacks its "esac"'),
        ("[[ a == b", 'lacks its "]]"'),
        ("a && || b )", "nothing to end here"),
        ("{ " * 60, "nested more than"),
        ("if x; then " * 60, "nested more than"),
        ("function f " * 60, "nested more than"),
        ("a=" + "${x:-" * 40 + "}" * 40, "nested more than"),
        ("a=xxxxxxxxxx\n" + "a=$a$a$a$a\n" * 20, "longer than"),
        (f"a={'a' * 19_000}\nb=" + "$a" * 20_000, "more than 100000 steps"),
        (f"a={'a' * 19_000}\nb=${{a//a/${{a//a/$a}}}}", "more than 100000 steps"),
        (
            "l=(1 2 3 4 5 6 7 8 9)\n" + "for i in ${l[@]}; do " * 8 + "a=1; " + "done; " * 8,
            "more than 100000 steps",
        ),
    ],
)
def test_what_is_no_script_is_one_clear_error(text: str, said: str) -> None:
    """A broken or endless script is an error with its line."""
    with pytest.raises(ScriptError, match=said.replace("(", r"\(").replace(")", r"\)")):
        values_of(text)
    with pytest.raises(UsageError, match=r"config\.sh:\d+: this is no config\.sh that can be read"):
        imported(f"{OFFICIAL}\n{text}")


def test_a_subscript_may_have_any_length() -> None:
    """An item far behind all others is empty, and one that is set there comes last."""
    far = "1" * 5000
    values = values_of(f"x=(a b)\ny=${{x[{far}]}}\nx[{far}]=c")
    assert (values["x"], values["y"]) == (["a", "b", "c"], "")


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"x=1\n" * 2_500_000, "larger than 256 KiB"),
        (b"a=\0", "NUL bytes"),
        (b"", "sets nothing"),
        (b"#!/bin/sh\necho hello\n", "sets nothing"),
        (b"\x7fELF\x02\x01\x01\x00", "NUL bytes"),
    ],
)
def test_what_is_no_config_is_one_clear_error(data: bytes, said: str) -> None:
    """A file that is something else is refused with the reason."""
    with pytest.raises(UsageError, match=said):
        imported(data)


CONSTRUCTS = [
    *("a[b ", "${", "$(", "( ", '"', "'", "`", "\\", "<<x\n", "a=(", "a=$a$a\n", "a+=(x)\n", "a; "),
    *("case a in ", "for a in b; do ", "if a; then b; elif ", "[[ ! ", "! ", "a=${b:-", "f() "),
]


@pytest.mark.timeout(30)
@pytest.mark.parametrize("piece", CONSTRUCTS)
def test_nothing_takes_for_ever(piece: str) -> None:
    """As much of one construct as a file may hold is read, or refused, within seconds."""
    with suppress(UsageError):
        imported(f"{OFFICIAL}\n{piece * (200_000 // len(piece))}")


def test_a_file_that_is_not_there() -> None:
    """A missing file and a folder are named."""
    for name in ("missing.sh", "."):
        with pytest.raises(UsageError, match="cannot read"):
            legacy.import_config(Path(name))


PIECES = st.sampled_from(
    [
        *OFFICIAL.splitlines(keepends=True),
        *(f"{text}\n" for text in SNIPPETS),
        *"(){}[]$`'\"\\|&;<>#=!*?~,:/%^@+-\n\t ",
        *("if ", "then ", "fi\n", "for a in ", "do ", "done\n", "case ", "esac\n", "[[ ", " ]]"),
        *("${", "$(", "((", "))", "<<END\n", "END\n", "a=(", "a+=", "a[", "]=", "\u00e9", "\ufeff"),
    ]
)


@given(st.lists(PIECES, max_size=60).map("".join))
def test_any_text_ends_well_or_in_one_error(text: str) -> None:
    """Whatever is mixed from the dialect's pieces is read, or is one error of ours."""
    with suppress(ScriptError):
        outcome = evaluation.evaluate(parser.parse(text), Path("/here"))
        assert all(note.startswith("line ") for note in outcome.notes)


@given(st.binary(max_size=300) | st.text(max_size=300).map(str.encode))
def test_any_bytes_end_well_or_in_one_error(data: bytes) -> None:
    """Any bytes after a good file are read, or are one error of ours; the result loads."""
    path = Path("fuzzed.sh")
    path.write_bytes(OFFICIAL.encode() + b"\n" + data)
    with suppress(UsageError):
        result = legacy.import_config(path)
        assert loaded(result.text).settings.image == "riva"


PRINTABLE = st.characters(codec="utf-8", exclude_categories=("C", "Z")) | st.just(" ")


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "MODEL_DEPLOY_KEY": st.text(PRINTABLE, min_size=1),
            "riva_model_loc": st.text("abc /.-_'\"$#\\", min_size=1).map(lambda text: f"/{text}"),
        },
    )
)
def test_any_value_survives(given_values: dict[str, str]) -> None:
    """Whatever is in single quotes in the config.sh is the value in the end, or is noted."""
    quoted = {k: "'" + v.replace("'", "'\\''") + "'" for k, v in given_values.items()}
    result = imported(edited(**quoted))
    settings = loaded(result.text).settings
    if "MODEL_DEPLOY_KEY" in given_values:
        assert settings.model_deploy_key == given_values["MODEL_DEPLOY_KEY"]
    if "riva_model_loc" in given_values and not result.notes:
        assert settings.riva_model_loc == os.path.normpath(given_values["riva_model_loc"])


def test_output_is_whole_and_replaces_nothing_unasked(tmp_path: Path) -> None:
    """An existing file stays as it is without --force, and nothing else is left behind."""
    result = imported(OFFICIAL)
    target = Path("out.env")
    legacy.write(target, result)
    assert target.read_text() == result.text + "\n"
    target.write_text("mine")
    with pytest.raises(UsageError, match="is there already"):
        legacy.write(target, result)
    assert target.read_text() == "mine"
    legacy.write(target, result, replace=True)
    assert target.read_text() == result.text + "\n"
    with pytest.raises(UsageError, match="is there already"):
        legacy.write(tmp_path, result, replace=True)
    with pytest.raises(FileNotFoundError):
        legacy.write(Path("no/such/out.env"), result)
    assert (
        sorted(p.name for p in tmp_path.iterdir()) == ["config.sh", "imported.env", "out.env"][::2]
    )


def test_settings_of_a_tegra_sample_are_the_official_ones() -> None:
    """On L4T the import of an untouched file has NVIDIA's own defaults."""
    text = edited(riva_target_gpu_family='"tegra"')
    settings = loaded(imported(text).text).settings
    official = Settings(image="riva", riva_target_gpu_family="tegra")
    assert settings == official
