from __future__ import annotations

from pathlib import Path

import pytest

from quickstart.config import MASK, SETTINGS, Settings, differences, load
from quickstart.config.keys import spelled
from quickstart.errors import ConfigError, UsageError


@pytest.fixture(autouse=True)
def in_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def write(text: str | bytes, name: str = "config.env") -> Path:
    path = Path(name)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def problems_of(text: str, *overrides: str, **environ: str) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as caught:
        load(write(text), overrides, environ)
    return caught.value.problems


def test_defaults_hold_without_any_source() -> None:
    """Without file, environment and flags every key has its default and says so."""
    loaded = load(environ={})
    assert loaded.settings == Settings()
    assert all(origin.startswith("default") for origin in loaded.origins.values())
    assert loaded.given == ()
    assert loaded.file is None


def test_stronger_layers_win() -> None:
    """A flag beats the environment, which beats the file, which beats the default."""
    write("riva_speech_api_port=1\nriva_timeout_sec=1\nasr_acoustic_model=file\n")
    environ = {"RIVA_QS_RIVA_SPEECH_API_PORT": "2", "RIVA_TIMEOUT_SEC": "2"}
    loaded = load(overrides=["riva_speech_api_port=3"], environ=environ)
    settings = loaded.settings
    assert (settings.riva_speech_api_port, settings.riva_timeout_sec) == (3, 2)
    assert settings.asr_acoustic_model == "file"
    assert loaded.origins["riva_speech_api_port"] == "--set"
    assert loaded.origins["riva_timeout_sec"] == "environment RIVA_TIMEOUT_SEC"
    assert loaded.origins["asr_acoustic_model"] == "config.env:3"


def test_own_variable_beats_the_official_one() -> None:
    """RIVA_QS_MODEL_DEPLOY_KEY is the more specific name, and an empty variable is none."""
    environ = {"MODEL_DEPLOY_KEY": "a", "RIVA_QS_MODEL_DEPLOY_KEY": "b", "RIVA_TIMEOUT_SEC": ""}
    settings = load(environ=environ).settings
    assert (settings.model_deploy_key, settings.riva_timeout_sec) == ("b", 300)


@pytest.mark.parametrize(
    "text",
    [
        b"\xef\xbb\xbfasr_acoustic_model=x\n",
        b"export asr_acoustic_model=x\r\n",
        b'# comment\n\n asr_acoustic_model = "x" # why\n',
        b"asr_acoustic_model='x'",
        b"\r\n\r\nasr_acoustic_model=x\r\n",
    ],
)
def test_whatever_editor_wrote_it(text: bytes) -> None:
    """A byte-order mark, CRLF, export, quotes, blanks and comments change nothing."""
    assert load(write(text), environ={}).settings.asr_acoustic_model == "x"


def test_line_numbers_count_blank_lines_and_comments() -> None:
    """A problem names the line on which an editor shows it."""
    assert problems_of("# a\n\n\nbackend=embedded\n\n\nbakend=x\n")[0].startswith("config.env:7: ")


def test_all_problems_are_reported_at_once() -> None:
    """Unknown keys, wrong types and bad lines of all layers come in one error."""
    found = problems_of(
        "asr_languge_code=en-US\nriva_speech_api_port=50o51\nservice_enabled_asr=maybe\n???\n",
        "backend=dokcer",
        "nonsense",
        RIVA_QS_RIVA_SPEECH_API_PROT="1",
    )
    assert len(found) == 7
    text = "\n".join(found)
    assert 'config.env:1: unknown key "asr_languge_code"; did you mean asr_language_code?' in text
    assert 'config.env:2: riva_speech_api_port: "50o51" is not a whole number' in text
    assert '"maybe" is neither true nor false' in text
    assert 'config.env:4: not key=value: "???"' in text
    assert '"dokcer" is not one of auto, embedded, docker' in text
    assert '--set: "nonsense" is not key=value' in text
    assert "did you mean RIVA_QS_RIVA_SPEECH_API_PORT?" in text


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('asr_language_code=("en-US")', "is a bash array; write asr_language_code=en-US"),
        ('asr_language_code=("en-US" "de-DE")', "write asr_language_code=en-US de-DE"),
        ('asr_acoustic_model=("a" "b")', "write asr_acoustic_model=a (one value; there were 2)"),
        ("riva_model_loc=$(pwd)/models", "is shell syntax"),
        ("riva_model_loc=`pwd`", "is shell syntax"),
        ("riva_model_loc=${HOME}/x", "is shell syntax"),
        ("riva_model_loc=a:b", "neither a path"),
        ("riva_model_loc=", "neither a path"),
        ("riva_model_loc=~no-such-user/x", "a home folder that does not exist"),
        ("readiness_audio=~no-such-user/x.wav", "a home folder that does not exist"),
        ("riva_speech_api_port=0", "0 is not a port"),
        ("riva_speech_api_port=65536", "65536 is not a port"),
        ("server_metrics_port=65536", "1 to 65535, or 0 for none"),
        ("riva_speech_api_port=", '"" is not a whole number'),
        ("riva_timeout_sec=-1", "-1 is no time to wait"),
        ("asr_language_code=english please", "is not a language code"),
        ("riva_speech_api_host=a b", "is not one word"),
        ('asr_acoustic_model="a\\tb"', "control character"),
        ("use_existing_rmirs", "not key=value"),
        ("backend=auto\nbackend=embedded", "backend is set a second time, after config.env:1"),
    ],
)
def test_a_wrong_value_is_explained(line: str, said: str) -> None:
    """Each value that cannot be used is refused with the reason."""
    found = problems_of(line)
    assert len(found) == 1
    assert said in found[0]


def test_an_array_over_several_lines_is_one_problem() -> None:
    """The lines of a bash array do not each add an error of their own."""
    found = problems_of('asr_language_code=( "en-US"\n  "de-DE"\n)\nbackend=auto\n')
    assert len(found) == 1
    assert "bash array" in found[0]


def test_the_file_is_data(tmp_path: Path) -> None:
    """Nothing in the file is executed or expanded, not even in a quoted secret."""
    write("MODEL_DEPLOY_KEY='$(touch executed)$HOME'\n")
    assert load(environ={}).settings.model_deploy_key == "$(touch executed)$HOME"
    assert not (tmp_path / "executed").exists()


def test_a_secret_never_shows() -> None:
    """A secret is masked in what is shown, and absent from errors about its line."""
    write("MODEL_DEPLOY_KEY=sesame\n")
    loaded = load(environ={})
    assert loaded.shown("MODEL_DEPLOY_KEY") == loaded.data("MODEL_DEPLOY_KEY") == MASK
    assert "sesame" not in str(problems_of('MODEL_DEPLOY_KEY="sesame\n'))


def test_paths_start_where_they_were_written(tmp_path: Path) -> None:
    """A relative path starts at its file's folder, or at the working directory for a flag."""
    (tmp_path / "etc").mkdir()
    file = write("riva_model_loc=./repo\nreadiness_audio=a.wav\n", "etc/config.env")
    settings = load(file, environ={}).settings
    assert settings.riva_model_loc == str(tmp_path / "etc" / "repo")
    assert settings.readiness_audio == str(tmp_path / "etc" / "a.wav")
    flagged = load(file, ["riva_model_loc=x/../y"], {}).settings
    assert flagged.riva_model_loc == str(tmp_path / "y")


def test_a_plain_name_stays_one() -> None:
    """A model location without a slash is a name, and a tilde is the home folder."""
    assert load(overrides=["riva_model_loc=my-repo.1"], environ={}).settings.riva_model_loc == (
        "my-repo.1"
    )
    home = load(overrides=["riva_model_loc=~/x"], environ={}).settings.riva_model_loc
    assert home == str(Path("~/x").expanduser())


@pytest.mark.parametrize("name", ["missing.env", "folder"])
def test_a_file_that_cannot_be_read_is_named(name: str, tmp_path: Path) -> None:
    """A configuration file that is missing or a folder is an error with its name."""
    (tmp_path / "folder").mkdir()
    with pytest.raises(UsageError, match=name):
        load(Path(name), environ={})


def test_a_file_that_is_not_text_is_refused() -> None:
    """Bytes that are not UTF-8 are an error and not a guess."""
    with pytest.raises(UsageError, match="byte 8 is not UTF-8"):
        load(write(b"backend=\xff"), environ={})


def test_every_field_is_documented() -> None:
    """Each setting has a sentence of documentation and a kind that the parser knows."""
    for setting in SETTINGS.values():
        assert setting.key.doc.endswith(".")
        assert setting.kind in {"bool", "int", "str", "tuple[str, ...]"}


@pytest.mark.parametrize(
    "settings",
    [
        Settings(image=image, riva_target_gpu_family=family)
        for image in ("open", "riva")
        for family in ("tegra", "non-tegra")
    ],
    ids=lambda settings: f"{settings.image}-{settings.riva_target_gpu_family}",
)
def test_defaults_pass_their_own_checks(settings: Settings) -> None:
    """What is written as a default is accepted as a value."""
    lines = [f"{s.name}={spelled(getattr(settings, s.field))}" for s in SETTINGS.values()]
    assert load(overrides=lines, environ={}).settings == settings


def test_open_defaults_need_no_account() -> None:
    """Without NVIDIA's image nothing is on that has no embedded model."""
    settings = Settings()
    assert (settings.image, settings.asr_acoustic_model) == ("open", "english")
    assert not settings.service_enabled_nlp
    assert not settings.service_enabled_tts
    assert (settings.gpus_to_use, settings.image_speech_api) == ("auto", "")


def test_a_default_follows_the_keys_before_it() -> None:
    """Organisation, team and version make the image's name; what is given itself stays."""
    lines = ["image=riva", "riva_ngc_team=", "riva_ngc_image_version=2.18.0"]
    lines.append("riva_target_gpu_family=non-tegra")
    settings = load(overrides=lines, environ={}).settings
    assert settings.image_speech_api == "nvcr.io/nvidia/riva-speech:2.18.0"
    assert settings.ngc_target == "nvidia"
    mine = load(overrides=[*lines, "NGC_TARGET=a/b"], environ={}).settings
    assert mine.image_speech_api == "nvcr.io/a/b/riva-speech:2.18.0"


@pytest.mark.parametrize(
    ("given", "name", "origin"),
    [
        ([], "asr_acoustic_model", "default (image=open)"),
        (["image=riva"], "asr_acoustic_model", "default (image=riva)"),
        (["image=riva"], "image_speech_api", "default (image=riva, tegra)"),
        (["image=riva"], "riva_model_loc", "default (image=riva, tegra)"),
        ([], "riva_model_loc", "default (image=open)"),
        ([], "riva_target_gpu_family", "--set"),
        ([], "NGC_TARGET", "default (riva_ngc_org/riva_ngc_team)"),
        ([], "riva_speech_api_port", "default"),
    ],
)
def test_a_default_says_what_it_depends_on(given: list[str], name: str, origin: str) -> None:
    """The origin of a default names image and platform where these decide."""
    loaded = load(overrides=[*given, "riva_target_gpu_family=tegra"], environ={})
    assert loaded.origins[name] == origin


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ("image=riva\nbackend=embedded", "backend=embedded runs no image"),
        ("riva_speech_api_port=7\nriva_speech_api_http_port=7", "are both 7"),
        ("server_metrics_port=50000", "riva_speech_api_http_port and server_metrics_port"),
        ("image=riva\nriva_speech_api_http_port=0", "image=riva needs"),
        ("ssl_server_cert=a.pem", "ssl_server_cert needs ssl_server_key"),
        ("ssl_server_key=a.pem", "ssl_server_key needs ssl_server_cert"),
        ("ssl_use_mutual_auth=true", "needs ssl_server_cert, ssl_server_key, ssl_root_cert"),
    ],
)
def test_values_must_fit_together(lines: str, said: str) -> None:
    """Values that are each fine and contradict one another are refused."""
    found = problems_of(lines)
    assert len(found) == 1
    assert said in found[0]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("image=rvia", "did you mean riva?"),
        ("riva_target_gpu_family=non-tgra", "did you mean non-tegra?"),
        ("asr_accessory_model=sillero", "is not one of empty, diarizer, silero, tele"),
        ("asr_language_code=", "at least one language code"),
        ("asr_language_code=en-US german!", '"german!" is not a language code'),
        ("gpus_to_use=devices=0", "is none of auto, none, all"),
        ("gpus_to_use=0", "is none of auto, none, all"),
        ("nmt_remote_asr_service=host", "is not host:port"),
        ("nmt_remote_tts_service=host:99999", "is not host:port"),
        ("riva_ngc_org=a b", "is not a plain name"),
        ("riva_ngc_model_version=", "is not a plain name"),
        ("riva_daemon_speech=/x", "is not a plain name"),
        ("NGC_TARGET=nvidia//riva", "is not a plain name"),
        ("image_speech_api=a b", "is not an image"),
        ("models_asr=nvidia/riva/x", "is not a model"),
        ("RIVA_EULA=yes", "is not one of empty, accept"),
    ],
)
def test_official_keys_are_checked(line: str, said: str) -> None:
    """Each kind of official value that cannot be used is refused with the reason."""
    found = problems_of(line)
    assert len(found) == 1
    assert said in found[0]


@pytest.mark.parametrize(
    "value",
    ["auto", "none", "all", "2", "device=0", "device=0,1", '"device=0,1"', "device=GPU-1a-b"],
)
def test_choices_of_gpus(value: str) -> None:
    """Whatever `docker --gpus` takes of device numbers is taken."""
    assert load(overrides=[f"gpus_to_use={value}"], environ={}).settings.gpus_to_use == value


def test_a_repr_shows_no_secret() -> None:
    """Settings that end up in a traceback or a log hide their keys."""
    settings = Settings(model_deploy_key="sesame", ngc_api_key="sesame", riva_api_key="sesame")
    assert "sesame" not in repr(settings)


def test_differences() -> None:
    """A comparison tells each key that differs, with both values, and no secret."""
    base = load(write("riva_speech_api_port=1\nMODEL_DEPLOY_KEY=a\n", "a.env"), environ={})
    mine = load(
        write("riva_speech_api_port=2\nMODEL_DEPLOY_KEY=b\nbackend=auto\n", "b.env"), environ={}
    )
    assert [d.name for d in differences(mine)] == ["MODEL_DEPLOY_KEY", "riva_speech_api_port"]
    found = [line for each in differences(mine, base) for line in each.lines()]
    assert found == [
        "-MODEL_DEPLOY_KEY=********",
        "+MODEL_DEPLOY_KEY=********  # b.env:2",
        "-riva_speech_api_port=1",
        "+riva_speech_api_port=2  # b.env:1",
    ]
    assert differences(mine, mine) == []
