"""What became of every variable of the official `config.sh` and of its scripts' environment."""

from __future__ import annotations

from pathlib import Path

import pytest

from quickstart import catalog, legacy
from quickstart.catalog import official
from quickstart.config import SETTINGS, Loaded, load
from quickstart.config.keys import spelled
from quickstart.errors import ConfigError

SAMPLES = Path(__file__).parents[1] / "data" / "config_sh"
IMAGE = "nvcr.io/nvidia/riva/riva-speech:2.19.0"
# Written down once more from what is known of 2.19.0: the default for servers and, after it, the
# one for L4T where that is another. The arrays are empty here: theirs follow in MODELS.
DEFAULTS = {
    "riva_target_gpu_family": ("non-tegra", "tegra"),
    "riva_tegra_platform": ("orin",),
    "service_enabled_asr": ("true",),
    "service_enabled_nlp": ("true",),
    "service_enabled_tts": ("true",),
    "service_enabled_nmt": ("false",),
    "asr_acoustic_model": ("conformer",),
    "asr_language_code": ("en-US",),
    "asr_accessory_model": ("",),
    "use_asr_greedy_decoder": ("false",),
    "use_asr_streaming_throughput_mode": ("false",),
    "deploy_offline_diarizer": ("false",),
    "tts_model": ("fastpitch_hifigan",),
    "tts_language_code": ("en-US",),
    "nmt_remote_asr_service": ("0.0.0.0:50051",),
    "nmt_remote_tts_service": ("0.0.0.0:50051",),
    "RIVA_API_KEY": ("",),
    "RIVA_API_NGC_ORG": ("",),
    "RIVA_EULA": ("",),
    "gpus_to_use": ("device=0",),
    "MODEL_DEPLOY_KEY": ("tlt_encode",),
    "riva_model_loc": ("riva-model-repo", "{cwd}/model_repository"),
    "use_existing_rmirs": ("false",),
    "riva_speech_api_port": ("50051",),
    "riva_speech_api_http_port": ("50000",),
    "riva_ngc_org": ("nvidia",),
    "riva_ngc_team": ("riva",),
    "riva_ngc_image_version": ("2.19.0",),
    "riva_ngc_model_version": ("2.19.0",),
    "models_asr": ("",),
    "models_nlp": ("",),
    "models_tts": ("",),
    "models_nmt": ("",),
    "NGC_TARGET": ("nvidia/riva",),
    "ssl_server_cert": ("",),
    "ssl_server_key": ("",),
    "ssl_root_cert": ("",),
    "ssl_use_mutual_auth": ("false",),
    "image_speech_api": (IMAGE, f"{IMAGE}-l4t-aarch64"),
    "riva_daemon_speech": ("riva-speech",),
    "riva_daemon_client": ("riva-client", ""),
}
# Variables of the scripts' environment, each with the key that it sets.
ENVIRONMENT = {
    "NGC_API_KEY": ("NGC_API_KEY", ""),
    "RIVA_TIMEOUT_SEC": ("riva_timeout_sec", "300"),
    "RIVA_API_KEY": ("RIVA_API_KEY", ""),
    "RIVA_API_NGC_ORG": ("RIVA_API_NGC_ORG", ""),
    "RIVA_EULA": ("RIVA_EULA", ""),
}
PUNCTUATION = "nlp_punctuation_bert_base_en_us"
# What the arrays of models hold by default.
MODELS = {
    "models_asr": (
        f"rmir_asr_conformer_en_us_str rmir_asr_conformer_en_us_ofl rmir_{PUNCTUATION}",
        f"models_asr_conformer_en_us_str models_{PUNCTUATION}",
    ),
    "models_nlp": (f"rmir_{PUNCTUATION}", f"models_{PUNCTUATION}"),
    "models_tts": (
        "rmir_tts_fastpitch_hifigan_en_us_ipa",
        "models_tts_fastpitch_hifigan_en_us_ipa",
    ),
    "models_nmt": ("rmir_nmt_megatron_1b_any_any",),
}
# What a key takes besides its default, and what it must not take.
ACCEPTED = {
    "riva_target_gpu_family": "tegra|non-tegra",
    "riva_tegra_platform": "orin|xavier|thor",
    "asr_language_code": "en-US|de-DE en-US|multi|es-en-US|em-ea",
    "asr_accessory_model": "|diarizer|silero|tele|silero_diarizer",
    "tts_language_code": "en-US es-US|multi",
    "gpus_to_use": 'device=0|device=0,1|"device=0,1"|all|2|none',
    "riva_model_loc": "riva-model-repo|/data/models|./here",
    "RIVA_EULA": "accept",
    "NGC_TARGET": "nvidia/riva|nvidia",
    "riva_ngc_team": "riva|",
    "ssl_use_mutual_auth": "false",
}
REFUSED = {
    "riva_target_gpu_family": "jetson|amd64",
    "riva_tegra_platform": "nano",
    "service_enabled_asr": "maybe",
    "use_existing_rmirs": "",
    "asr_accessory_model": "vad",
    "gpus_to_use": "device=|-1|gpu0",
    "RIVA_EULA": "yes",
    "riva_speech_api_port": "0|65536|grpc",
    "nmt_remote_asr_service": "host",
}
# What the maps, and keys that only older releases have, became.
ANOTHER = {
    "asr_models_languages_map": "",
    "tts_models_languages_map": "",
    "language_code": "asr_language_code=de-DE",
    "riva_arm64_legacy_platform": "riva_tegra_platform=xavier",
    "asr_acoustic_model_variant": "asr_acoustic_model=conformer_xl",
    "image_client": "image_client: riva-qs transcribe",
    "image_init_speech": "image_init_speech: one image",
    "riva_vision_api_port": "riva_vision_api_port: the vision services are gone",
    "riva_rmir_loc": "riva_rmir_loc: archives are in rmir/",
}
FAMILIES = ("non-tegra", "tegra")


@pytest.fixture(autouse=True)
def in_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def as_official(family: str, *lines: str, environ: dict[str, str] | None = None) -> Loaded:
    """Return the settings of NVIDIA's image on a platform."""
    base = ["image=riva", f"riva_target_gpu_family={family}"]
    return load(overrides=[*base, *lines], environ=environ or {})


def text_of(loaded: Loaded, name: str) -> str:
    return spelled(getattr(loaded.settings, SETTINGS[name].field))


@pytest.mark.parametrize("name", DEFAULTS)
@pytest.mark.parametrize("family", FAMILIES)
def test_the_default_of_every_key(name: str, family: str) -> None:
    """Each variable of the official file is a key, with its default for servers and for L4T."""
    expected = DEFAULTS[name][-1 if family == "tegra" else 0].format(cwd=Path.cwd())
    assert text_of(as_official(family), name) == expected


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("family", FAMILIES)
def test_the_default_of_every_array(name: str, family: str) -> None:
    """What an array of models holds follows from the keys, as it does in the official file."""
    settings = as_official(family, "service_enabled_nmt=true").settings
    service = name.removeprefix("models_")
    found = [model.reference for model in official.named(settings, service)]
    wanted = MODELS[name][-1 if family == "tegra" else 0].split()
    prebuilt = {
        f"nvidia/riva/{model}:2.19.0" + ("-tegra-orin" if model.startswith("models_") else "")
        for model in wanted
    }
    assert (set(found), len(found)) == (prebuilt, len(wanted))
    assert prebuilt <= {artifact.reference for artifact in catalog.wanted(settings)}


@pytest.mark.parametrize("variable", ENVIRONMENT)
def test_the_environment_of_the_scripts(variable: str) -> None:
    """What the scripts read from the environment sets its key, which has the scripts' default."""
    name, default = ENVIRONMENT[variable]
    value = {"RIVA_EULA": "accept"}.get(variable, "77")
    assert text_of(as_official("non-tegra"), name) == default
    assert text_of(as_official("non-tegra", environ={variable: value}), name) == value


@pytest.mark.parametrize(
    ("name", "value"), [(n, v) for n, values in ACCEPTED.items() for v in values.split("|")]
)
def test_values_that_the_official_file_takes(name: str, value: str) -> None:
    """Every value that is known to be valid is taken."""
    loaded = load(overrides=["image=riva", f"{name}={value}"], environ={})
    assert loaded.origins[name] == "--set"


@pytest.mark.parametrize(
    ("name", "value"), [(n, v) for n, values in REFUSED.items() for v in values.split("|")]
)
def test_values_that_it_does_not_take(name: str, value: str) -> None:
    """What can only be a mistake is refused under its key."""
    with pytest.raises(ConfigError) as caught:
        load(overrides=["image=riva", f"{name}={value}"], environ={})
    assert any(name in problem for problem in caught.value.problems)


@pytest.mark.parametrize("name", ANOTHER)
def test_what_is_no_key_became_another_or_is_told(name: str, tmp_path: Path) -> None:
    """The import turns an old name into its key, or says in one sentence why there is none."""
    values = {"language_code": "de-DE", "riva_arm64_legacy_platform": "xavier"}
    value = {**values, "asr_acoustic_model_variant": "xl"}.get(name, "something")
    line = f"declare -A {name}" if name.endswith("_map") else f"{name}={value}"
    path = tmp_path / "config.sh"
    path.write_text(f"service_enabled_asr=true\nasr_acoustic_model=conformer\n{line}\n")
    result = legacy.import_config(path)
    assert ANOTHER[name] in "\n".join((result.text, *result.notes))
    assert "no such setting" not in "\n".join(result.notes)
    assert name not in SETTINGS


@pytest.mark.parametrize("path", sorted(SAMPLES.glob("*.sh")), ids=lambda path: path.stem)
def test_no_release_has_a_variable_that_is_not_here(path: Path) -> None:
    """Every key that a release's file sets stands in these tables, and none is unknown to us."""
    result = legacy.import_config(path)
    assert not [note for note in result.notes if "no such setting" in note]
    set_there = {line.split("=")[0].strip() for line in path.read_text().splitlines()}
    assert set_there & set(SETTINGS) <= set(DEFAULTS)
