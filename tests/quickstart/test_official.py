"""NVIDIA's models as the official `config.sh` names them: every pair of its maps, and its rules."""

from __future__ import annotations

from typing import Any

import pytest

from quickstart import catalog
from quickstart.catalog import official
from quickstart.config import Settings
from quickstart.errors import ConfigError, UsageError

UNIFIED = "unified"
# What the 2.19.0 script offers, written down once more from what is known of it.
ASR = {
    "conformer": "ar-AR en-US en-GB de-DE es-ES es-US fr-FR hi-IN it-IT ja-JP ru-RU ko-KR pt-BR"
    " zh-CN nl-NL nl-BE",
    "conformer_xl": "en-US",
    "conformer_unified": "de-DE ja-JP zh-CN",
    "conformer_ml_cs": "es-en-US",
    "conformer_unified_ml_cs": "ja-en-JP",
    "parakeet_0.6b": "en-US",
    "parakeet_0.6b_unified": "en-US zh-CN",
    "parakeet_0.6b_unified_ml_cs": "es-en-US",
    "parakeet_1.1b": "en-US",
    "parakeet_1.1b_unified_ml_cs": "em-ea",
    "parakeet_1.1b_unified_ml_cs_universal": "multi",
    "parakeet_1.1b_unified_ml_cs_concat": "multi",
    "parakeet-rnnt_1.1b": "en-US",
    "parakeet-rnnt_1.1b_unified_ml_cs_universal": "multi",
    "whisper_large": "multi",
    "whisper_large_turbo": "multi",
    "distil_whisper_large": "en-US",
    "kotoba_whisper": "ja-JP",
    "canary_1b": "multi",
    "canary_0.6b_turbo": "multi",
}
TTS = {
    "fastpitch_hifigan": "en-US es-ES es-US it-IT de-DE zh-CN",
    "magpie": "multi",
    "radtts_hifigan": "en-US",
    "radttspp_hifigan": "en-US",
    "pflow_hifigan": "en-US",
}
ASR_PAIRS = [(model, code) for model, codes in ASR.items() for code in codes.split()]
TTS_PAIRS = [(model, code) for model, codes in TTS.items() for code in codes.split()]
FORCED_GREEDY = [
    "parakeet_1.1b_unified_ml_cs_universal",
    "parakeet_1.1b_unified_ml_cs_concat",
    "parakeet-rnnt_1.1b",
    "parakeet-rnnt_1.1b_unified_ml_cs_universal",
]
REFUSED_ON_TEGRA = [
    model
    for model in ASR
    if model == "conformer_xl" or any(w in model for w in ("rnnt", "canary", "whisper"))
]


def riva(family: str = "non-tegra", **given: Any) -> Settings:
    return Settings(image="riva", riva_target_gpu_family=family, **given)


def asr_only(model: str, *codes: str, family: str = "non-tegra", **given: Any) -> Settings:
    switches: dict[str, Any] = {"service_enabled_nlp": False, "service_enabled_tts": False}
    words: dict[str, Any] = {"asr_acoustic_model": model, "asr_language_code": codes}
    return riva(family, **{**switches, **words, **given})


def tts_only(model: str, *codes: str, family: str = "non-tegra", **given: Any) -> Settings:
    switches: dict[str, Any] = {"service_enabled_nlp": False, "service_enabled_asr": False}
    return riva(family, **{**switches, "tts_model": model, "tts_language_code": codes, **given})


def references(settings: Settings) -> list[str]:
    return [artifact.reference for artifact in catalog.wanted(settings)]


def names(settings: Settings) -> list[str]:
    """Return what is asked for, without the organisation, the team and the version."""
    for reference in references(settings):
        assert reference.endswith(":2.19.0") or ":2.19.0-tegra-" in reference
    return [reference.rpartition("/")[2].partition(":")[0] for reference in references(settings)]


def refusal(settings: Settings) -> str:
    with pytest.raises(ConfigError) as caught:
        catalog.wanted(settings)
    return "\n".join(caught.value.problems)


def test_defaults_of_servers() -> None:
    """The default list of 2.19.0 for x86, in its order, each model once."""
    assert references(riva()) == [
        "nvidia/riva/rmir_asr_conformer_en_us_str:2.19.0",
        "nvidia/riva/rmir_asr_conformer_en_us_ofl:2.19.0",
        "nvidia/riva/rmir_nlp_punctuation_bert_base_en_us:2.19.0",
        "nvidia/riva/rmir_tts_fastpitch_hifigan_en_us_ipa:2.19.0",
    ]


def test_defaults_of_l4t() -> None:
    """The default list of 2.19.0 for L4T: prebuilt models of that platform, none offline."""
    assert references(riva("tegra")) == [
        "nvidia/riva/models_asr_conformer_en_us_str:2.19.0-tegra-orin",
        "nvidia/riva/models_nlp_punctuation_bert_base_en_us:2.19.0-tegra-orin",
        "nvidia/riva/models_tts_fastpitch_hifigan_en_us_ipa:2.19.0-tegra-orin",
    ]


def test_the_services_own_lists_are_those_of_the_script() -> None:
    """The script's arrays name the punctuation model twice: for asr and for nlp."""
    asr, nlp = (official.named(riva(), service) for service in ("asr", "nlp"))
    assert (
        asr[-1].reference
        == nlp[0].reference
        == ("nvidia/riva/rmir_nlp_punctuation_bert_base_en_us:2.19.0")
    )
    assert (len(asr), len(nlp)) == (3, 1)


@pytest.mark.parametrize("family", ["non-tegra", "tegra"])
def test_translation(family: str) -> None:
    """Translation is one archive of the same name on both platforms."""
    settings = riva(family, service_enabled_nmt=True)
    assert references(settings)[-1] == "nvidia/riva/rmir_nmt_megatron_1b_any_any:2.19.0"


@pytest.mark.parametrize("family", ["non-tegra", "tegra"])
def test_the_release_of_the_models_decides(family: str) -> None:
    """2.18.0 has the same names with its own version, and no translation of itself."""
    suffix = "-tegra-orin" if family == "tegra" else ""
    older = references(riva(family, riva_ngc_model_version="2.18.0"))
    assert older == [r.replace("2.19.0", "2.18.0") for r in references(riva(family))]
    assert older[0].endswith(f":2.18.0{suffix}")
    nmt = riva(family, riva_ngc_model_version="2.18.0", service_enabled_nmt=True)
    assert "list the models in models_nmt" in refusal(nmt)


@pytest.mark.parametrize(("model", "code"), ASR_PAIRS)
def test_every_pair_of_recognition_on_servers(model: str, code: str) -> None:
    """Each model in each of its languages gives the archives that the naming scheme says."""
    stem = f"rmir_asr_{model.replace('.', '-')}"
    own_kind = "whisper" in model or "canary" in model
    if code != "multi" and not own_kind:
        stem += "_" + code.lower().replace("-", "_")
    decoder = "_gre" if model in FORCED_GREEDY else ""
    expected = [f"{stem}_ofl{decoder}"]
    if not own_kind and model != "parakeet-rnnt_1.1b":
        expected.insert(0, f"{stem}_str{decoder}")
    if UNIFIED not in model and not own_kind:
        language, region = code.lower().split("-")[0], code.lower().split("-")[-1]
        expected.append(f"rmir_nlp_punctuation_bert_base_{language}_{region}")
    assert names(asr_only(model, code)) == expected


@pytest.mark.parametrize(("model", "code"), ASR_PAIRS)
def test_every_pair_of_recognition_on_l4t(model: str, code: str) -> None:
    """Each model that is prebuilt for L4T is one streaming archive; the others are refused."""
    settings = asr_only(model, code, family="tegra")
    if model in REFUSED_ON_TEGRA:
        assert f"{model} is not prebuilt for tegra" in refusal(settings)
        return
    part = "" if code == "multi" else "_" + code.lower().replace("-", "_")
    expected = [f"models_asr_{model.replace('.', '-')}{part}_str"]
    if UNIFIED not in model:
        language, region = code.lower().split("-")[0], code.lower().split("-")[-1]
        expected.append(f"models_nlp_punctuation_bert_base_{language}_{region}")
    assert names(settings) == expected


@pytest.mark.parametrize(("model", "code"), TTS_PAIRS)
@pytest.mark.parametrize("family", ["non-tegra", "tegra"])
def test_every_pair_of_synthesis(model: str, code: str, family: str) -> None:
    """Each voice in each of its languages, on both platforms; pflow is another organisation's."""
    settings = tts_only(model, code, family=family)
    if (family, model) == ("tegra", "magpie"):
        assert "magpie is not prebuilt for tegra" in refusal(settings)
        return
    prefix = "models" if family == "tegra" else "rmir"
    suffix = "-tegra-orin" if family == "tegra" else ""
    if model == "pflow_hifigan":
        assert references(settings) == ["gjaugwraudqz/rmir_tts_pflow_hifigan_en_us_ipa:2.19.0"]
        return
    part = "multilingual" if code == "multi" else code.lower().replace("-", "_")
    voices = {"de-DE": ["_m"], "es-ES": ["_f", "_m"], "it-IT": ["_f", "_m"]}.get(code, [""])
    assert references(settings) == [
        f"nvidia/riva/{prefix}_tts_{model}_{part}{voice}_ipa:2.19.0{suffix}" for voice in voices
    ]


def test_the_maps_are_complete() -> None:
    """What 2.19 offers is this list and no more."""
    for version in ("2.19.0", "2.19.0.1", "2.24.0", "latest"):
        offered = official.release(version)
        assert {model: " ".join(codes) for model, codes in offered.asr.items()} == ASR
        assert {model: " ".join(codes) for model, codes in offered.tts.items()} == TTS


def test_the_older_maps() -> None:
    """2.18 lacks what came with 2.19; of releases before it no map is known but its own."""
    new = {"parakeet-rnnt_1.1b_unified_ml_cs_universal", "whisper_large_turbo", "kotoba_whisper"}
    for version in ("2.18.0", "2.12.1"):
        offered = official.release(version)
        assert set(ASR) - set(offered.asr) == new
        assert offered.asr["parakeet_0.6b_unified"] == ("en-US",)
        assert set(offered.tts) == set(TTS) - {"magpie"} | {"t5_codec"}


@pytest.mark.parametrize("model", FORCED_GREEDY)
def test_greedy_that_nobody_asked_for(model: str) -> None:
    """Four models have the greedy decoder only."""
    archives = [n for n in names(asr_only(model, ASR[model])) if "_asr_" in n]
    assert archives
    assert all(name.endswith("_gre") for name in archives)


def test_the_greedy_decoder() -> None:
    """It marks the streaming and the offline archive, and not the punctuation."""
    assert names(asr_only("conformer", "de-DE", use_asr_greedy_decoder=True)) == [
        "rmir_asr_conformer_de_de_str_gre",
        "rmir_asr_conformer_de_de_ofl_gre",
        "rmir_nlp_punctuation_bert_base_de_de",
    ]


def test_throughput_mode() -> None:
    """It marks the streaming archive only, before the decoder."""
    settings = asr_only(
        "conformer", "en-US", use_asr_streaming_throughput_mode=True, use_asr_greedy_decoder=True
    )
    assert names(settings)[:2] == [
        "rmir_asr_conformer_en_us_str_thr_gre",
        "rmir_asr_conformer_en_us_ofl_gre",
    ]


@pytest.mark.parametrize(
    ("accessory", "offline"), [("diarizer", ""), ("silero", "_silero"), ("tele", "_tele")]
)
def test_accessories(accessory: str, offline: str) -> None:
    """Each marks streaming and offline; the diarizer stands beside the plain offline archive."""
    settings = asr_only("parakeet_1.1b", "en-US", asr_accessory_model=accessory)
    assert names(settings) == [
        f"rmir_asr_parakeet_1-1b_en_us_str_{accessory}",
        f"rmir_asr_parakeet_1-1b_en_us_ofl{offline}",
        "rmir_nlp_punctuation_bert_base_en_us",
    ]


@pytest.mark.parametrize("accessory", ["silero", "tele"])
def test_accessories_with_throughput_mode(accessory: str) -> None:
    """Two of them go with the throughput mode."""
    settings = asr_only(
        "parakeet_1.1b",
        "en-US",
        asr_accessory_model=accessory,
        use_asr_streaming_throughput_mode=True,
    )
    assert names(settings)[0] == f"rmir_asr_parakeet_1-1b_en_us_str_thr_{accessory}"


def test_the_offline_diarizer() -> None:
    """On servers it is one archive more; on L4T it brings the offline archive along."""
    servers = names(asr_only("conformer", "en-US", deploy_offline_diarizer=True))
    assert servers[1:3] == ["rmir_asr_conformer_en_us_ofl", "rmir_diarizer_offline"]
    tegra = asr_only("conformer", "en-US", family="tegra", deploy_offline_diarizer=True)
    assert references(tegra)[:3] == [
        "nvidia/riva/models_asr_conformer_en_us_str:2.19.0-tegra-orin",
        "nvidia/riva/rmir_asr_conformer_en_us_ofl:2.19.0",
        "nvidia/riva/rmir_diarizer_offline:2.19.0",
    ]
    assert "rmir_diarizer_offline" not in names(
        asr_only("whisper_large", "multi", deploy_offline_diarizer=True)
    )


def test_several_languages() -> None:
    """Each language brings its own archives, in the order in which they are listed."""
    settings = asr_only("conformer", "de-DE", "en-US", deploy_offline_diarizer=True)
    assert names(settings) == [
        "rmir_asr_conformer_de_de_str",
        "rmir_asr_conformer_de_de_ofl",
        "rmir_diarizer_offline",
        "rmir_nlp_punctuation_bert_base_de_de",
        "rmir_asr_conformer_en_us_str",
        "rmir_asr_conformer_en_us_ofl",
        "rmir_nlp_punctuation_bert_base_en_us",
    ]


def test_organisation_team_version_and_platform() -> None:
    """The keys of NGC make the target; a team may be missing."""
    given = {"riva_ngc_org": "mine", "riva_ngc_team": "", "riva_ngc_model_version": "2.19.0.1"}
    assert references(riva(**given))[0] == "mine/rmir_asr_conformer_en_us_str:2.19.0.1"
    tegra = riva("tegra", riva_tegra_platform="xavier", riva_ngc_team="ours")
    assert references(tegra)[0] == (
        "nvidia/ours/models_asr_conformer_en_us_str:2.19.0-tegra-xavier"
    )


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"asr_acoustic_model": "conformr"}, "did you mean conformer?"),
        ({"asr_acoustic_model": "conformr"}, "is not one of conformer, conformer_xl, "),
        ({"asr_language_code": ("en-UK", "en-US")}, "conformer has no en-UK; it has ar-AR, "),
        ({"asr_language_code": ("es-en-US", "en-US")}, "(es-en-US is in conformer_ml_cs, "),
        ({"asr_accessory_model": "silero"}, "silero is prebuilt with parakeet_1.1b only"),
        ({"asr_accessory_model": "silero_diarizer"}, "has no archive for servers"),
        ({"tts_model": "magpy"}, "did you mean magpie?"),
        ({"tts_language_code": ("en-GB",)}, "fastpitch_hifigan has no en-GB; it has en-US, "),
        ({"asr_language_code": ("de-DE",)}, "service_enabled_nlp: it knows en-US only"),
    ],
)
def test_refusals_on_servers(given: dict[str, Any], said: str) -> None:
    """What NVIDIA does not offer is refused with what was near and what there is."""
    assert said in refusal(riva(**given))


@pytest.mark.parametrize("accessory", ["diarizer", "silero", "tele"])
def test_accessories_exclude_the_greedy_decoder(accessory: str) -> None:
    """An accessory is built with the decoder that has a language model."""
    settings = asr_only(
        "parakeet_1.1b", "en-US", asr_accessory_model=accessory, use_asr_greedy_decoder=True
    )
    assert f"{accessory} is not built with the greedy decoder" in refusal(settings)


def test_the_diarizer_excludes_throughput_mode() -> None:
    """The diarizer is built for the lowest latency only."""
    settings = asr_only(
        "parakeet_1.1b",
        "en-US",
        asr_accessory_model="diarizer",
        use_asr_streaming_throughput_mode=True,
    )
    assert "diarizer is built for the lowest latency only" in refusal(settings)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("asr_accessory_model", "diarizer"),
        ("use_asr_greedy_decoder", True),
        ("use_asr_streaming_throughput_mode", True),
    ],
)
def test_refusals_on_tegra(key: str, value: object) -> None:
    """Nothing is prebuilt for L4T with an accessory, the greedy decoder or throughput mode."""
    settings = asr_only("parakeet_1.1b", "en-US", family="tegra", **{key: value})
    assert f"{key}: nothing is prebuilt for tegra" in refusal(settings)


def test_all_refusals_come_at_once() -> None:
    """Every reason of every service is in the one error."""
    settings = riva(
        "tegra",
        asr_acoustic_model="whisper_large",
        asr_language_code=("multi",),
        tts_model="magpie",
        tts_language_code=("multi",),
    )
    assert len(refusal(settings).splitlines()) == 3


def test_what_is_switched_off_is_not_checked() -> None:
    """A model that does not exist hinders nobody while its service is off."""
    settings = riva(
        service_enabled_asr=False,
        asr_acoustic_model="gone",
        service_enabled_tts=False,
        tts_model="x",
    )
    assert references(settings) == ["nvidia/riva/rmir_nlp_punctuation_bert_base_en_us:2.19.0"]


def test_a_list_of_ones_own_replaces_the_maps() -> None:
    """models_asr is taken as it is, and the keys of the maps are not looked at."""
    settings = riva(
        asr_acoustic_model="citrinet_1024", models_asr=("nvidia/riva/rmir_asr_citrinet:2.10.0",)
    )
    assert references(settings)[0] == "nvidia/riva/rmir_asr_citrinet:2.10.0"
    assert len(references(settings)) == 3


def test_magpie_on_thor() -> None:
    """What is refused on older Jetsons is there on Thor."""
    settings = tts_only(
        "magpie",
        "multi",
        family="tegra",
        riva_tegra_platform="thor",
        riva_ngc_model_version="2.24.0",
    )
    assert references(settings) == [
        "nvidia/riva/models_tts_magpie_multilingual_ipa:2.24.0-tegra-thor"
    ]


def test_no_service_at_all_is_a_mistake() -> None:
    """With NVIDIA's image too, something must be served."""
    with pytest.raises(UsageError, match="no service is enabled"):
        catalog.wanted(
            riva(service_enabled_asr=False, service_enabled_nlp=False, service_enabled_tts=False)
        )
