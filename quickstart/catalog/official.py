"""Which of NVIDIA's models the settings name, by the rules of the official `config.sh`.

The maps of models and languages and every exception are data: `artifacts/official.json`. This
module puts names together and says what does not go together; it fetches nothing. The official
script checks a service even when it is switched off; here only what is switched on is checked.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from quickstart.config.values import nearest

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from quickstart.config import Settings

PUNCTUATION = "punctuation_bert_base"


@dataclass(frozen=True)
class Named:
    """One of NVIDIA's models: what it is for, and its NGC target."""

    language: str
    model: str
    reference: str


@dataclass(frozen=True)
class Release:
    """What one release offers: languages by model, and the models of translation."""

    asr: dict[str, tuple[str, ...]]
    tts: dict[str, tuple[str, ...]]
    nmt: tuple[str, ...]


@cache
def data() -> dict[str, Any]:
    """Return the maps and the exceptions."""
    text = files("quickstart").joinpath("artifacts/official.json").read_text("utf-8")
    content: dict[str, Any] = json.loads(text)
    return content


def release(version: str) -> Release:
    """Return what the release of these models offers: the newest known one that is not newer."""
    known = data()["releases"]
    digits = [int(number) for number in re.findall(r"\d+", version)[:2]]
    fitting = [name for name in known if [int(n) for n in name.split(".")] <= digits]
    oldest, *_, newest = known
    row = known[(fitting or [oldest])[-1] if digits else newest]
    asr, tts = ({m: tuple(codes.split()) for m, codes in row[s].items()} for s in ("asr", "tts"))
    return Release(asr, tts, tuple(row["nmt"]))


def named(settings: Settings, service: str) -> tuple[Named, ...]:
    """Return the models of a service in the order of the official script, repeats included."""
    rules = {"asr": _asr, "nlp": _nlp, "tts": _tts, "nmt": _nmt}
    return tuple(rules[service](settings))


def problems(settings: Settings, service: str) -> tuple[str, ...]:
    """Return everything about a service that NVIDIA's models cannot meet."""
    rules = {"asr": _wrong_asr, "nlp": _wrong_nlp, "tts": _wrong_tts, "nmt": _wrong_nmt}
    return tuple(rules[service](settings))


def _is_tegra(settings: Settings) -> bool:
    """Say whether prebuilt models of L4T are meant."""
    return settings.riva_target_gpu_family == "tegra"


def _matches(model: str, patterns: str) -> bool:
    """Say whether a model is one of a list of exceptions."""
    return any(fnmatchcase(model, pattern) for pattern in data()[patterns])


def _rmir(settings: Settings, name: str, org: str = "") -> str:
    """Return the NGC target of an archive that is built into engines on the target GPU."""
    path = [org] if org else filter(None, (settings.riva_ngc_org, settings.riva_ngc_team))
    return f"{'/'.join(path)}/rmir_{name}:{settings.riva_ngc_model_version}"


def _built(settings: Settings, name: str) -> str:
    """Return the NGC target of a model as the platform takes it: L4T has prebuilt ones."""
    target = _rmir(settings, name)
    if not _is_tegra(settings):
        return target
    suffix = f"{settings.riva_target_gpu_family}-{settings.riva_tegra_platform}"
    return f"{target.replace('/rmir_', '/models_')}-{suffix}"


def _asr(settings: Settings) -> Iterator[Named]:
    """Yield the recognition models of every language, each with its punctuation."""
    model = settings.asr_acoustic_model
    for language in settings.asr_language_code:
        stem = f"asr_{model.replace('.', '-')}{_language_part(model, language)}"
        rule = _asr_of_tegra if _is_tegra(settings) else _asr_of_servers
        for reference in rule(settings, stem):
            yield Named(language, model, reference)
        if not _matches(model, "asr_with_punctuation_of_its_own"):
            yield Named(language, PUNCTUATION, _built(settings, _punctuation(language)))


def _punctuation(language: str) -> str:
    """Return the name of a language's punctuation model; es-en-US is es_us to it."""
    parts = language.lower().split("-")
    return f"nlp_{PUNCTUATION}_{parts[0]}_{parts[-1]}"


def _language_part(model: str, language: str) -> str:
    """Return what a language adds to the name of a recognition model."""
    if language == "multi" or _matches(model, "asr_without_language_in_name"):
        return ""
    return f"_{language.lower().replace('-', '_')}"


def _decoder(settings: Settings) -> str:
    """Return what the decoder adds to the name of a recognition model."""
    greedy = settings.use_asr_greedy_decoder or settings.asr_acoustic_model in data()["asr_greedy"]
    # These bring a decoder of their own, which the switch does not change.
    own = _matches(settings.asr_acoustic_model, "asr_without_language_in_name")
    return "_gre" if greedy and not own else ""


def _asr_of_servers(settings: Settings, stem: str) -> Iterator[str]:
    """Yield the archives of a recognition model: streaming, offline, and who speaks."""
    model, decoder = settings.asr_acoustic_model, _decoder(settings)
    accessory = f"_{settings.asr_accessory_model}" if settings.asr_accessory_model else ""
    if not _matches(model, "asr_offline_only"):
        mode = "_thr" if settings.use_asr_streaming_throughput_mode else ""
        yield _rmir(settings, f"{stem}_str{mode}{decoder}{accessory}")
    beside = "" if accessory == "_diarizer" else accessory
    yield _rmir(settings, f"{stem}_ofl{decoder}{beside}")
    if settings.deploy_offline_diarizer and not _matches(model, "asr_without_language_in_name"):
        yield _rmir(settings, "diarizer_offline")


def _asr_of_tegra(settings: Settings, stem: str) -> Iterator[str]:
    """Yield the prebuilt streaming model; what is offline is built on the device."""
    yield _built(settings, f"{stem}_str")
    if settings.deploy_offline_diarizer:
        yield _rmir(settings, f"{stem}_ofl{_decoder(settings)}")
        yield _rmir(settings, "diarizer_offline")


def _nlp(settings: Settings) -> Iterator[Named]:
    """Yield the language processing model."""
    yield Named("en-US", PUNCTUATION, _built(settings, f"nlp_{PUNCTUATION}_en_us"))


def _tts(settings: Settings) -> Iterator[Named]:
    """Yield the voices of every language."""
    model = settings.tts_model
    org = data()["tts_of_another_org"].get(model, "")
    for language in settings.tts_language_code:
        part = "multilingual" if language == "multi" else language.lower().replace("-", "_")
        for voice in _voices(language):
            name = f"tts_{model}_{part}{voice}_ipa"
            target = _rmir(settings, name, org) if org else _built(settings, name)
            yield Named(language, model, target)


def _voices(language: str) -> tuple[str, ...]:
    """Return what the voices of a language add to a name."""
    if language in data()["tts_one_voice_model"]:
        return ("",)
    return ("_m",) if language in data()["tts_male_only"] else ("_f", "_m")


def _nmt(settings: Settings) -> Iterator[Named]:
    """Yield the translation models; L4T has none that are prebuilt."""
    for name in release(settings.riva_ngc_model_version).nmt:
        yield Named("multi", name.removeprefix("nmt_"), _rmir(settings, name))


def _wrong_asr(settings: Settings) -> Iterator[str]:
    """Yield what NVIDIA's recognition models cannot meet."""
    offered = release(settings.riva_ngc_model_version).asr
    model, codes = settings.asr_acoustic_model, settings.asr_language_code
    yield from _not_offered(offered, ("asr_acoustic_model", model), ("asr_language_code", codes))
    if _is_tegra(settings):
        yield from _wrong_on_tegra(settings)
    elif settings.asr_accessory_model:
        yield from _wrong_accessory(settings)


def _not_offered(
    offered: dict[str, tuple[str, ...]],
    model: tuple[str, str],
    languages: tuple[str, Iterable[str]],
) -> Iterator[str]:
    """Yield what is wrong with a model, or with languages that it may not have."""
    (model_key, name), (languages_key, codes) = model, languages
    if name not in offered:
        yield f'{model_key}: "{name}" is not one of {", ".join(offered)}{nearest(name, offered)}'
        return
    for code in codes:
        if code not in offered[name]:
            others = [other for other, theirs in offered.items() if code in theirs]
            elsewhere = f" ({code} is in {', '.join(others)})" if others else ""
            has = ", ".join(offered[name])
            near = nearest(code, offered[name])
            yield f"{languages_key}: {name} has no {code}; it has {has}{near}{elsewhere}"


def _wrong_on_tegra(settings: Settings) -> Iterator[str]:
    """Yield the recognition that is not prebuilt for L4T."""
    if _matches(settings.asr_acoustic_model, "asr_not_for_tegra"):
        yield f"asr_acoustic_model: {settings.asr_acoustic_model} is not prebuilt for tegra"
    wishes = {
        "asr_accessory_model": settings.asr_accessory_model,
        "use_asr_greedy_decoder": settings.use_asr_greedy_decoder,
        "use_asr_streaming_throughput_mode": settings.use_asr_streaming_throughput_mode,
    }
    for key in (key for key, wish in wishes.items() if wish):
        yield f"{key}: nothing is prebuilt for tegra with it; list the models in models_asr"


def _wrong_accessory(settings: Settings) -> Iterator[str]:
    """Yield what does not go with an accessory model."""
    accessory, model = settings.asr_accessory_model, settings.asr_acoustic_model
    known, fitting = data()["asr_accessories"], data()["asr_with_accessory"]
    if accessory not in known:
        valid = ", ".join(known)
        yield f"asr_accessory_model: {accessory} has no archive for servers; {valid} have"
    elif model not in fitting:
        yield (
            f"asr_accessory_model: {accessory} is prebuilt with {', '.join(fitting)} only, not"
            f" with {model}; build your own archive with riva-build"
        )
    if settings.use_asr_greedy_decoder:
        yield f"use_asr_greedy_decoder: {accessory} is not built with the greedy decoder"
    if settings.use_asr_streaming_throughput_mode and accessory == "diarizer":
        yield "use_asr_streaming_throughput_mode: diarizer is built for the lowest latency only"


def _wrong_nlp(settings: Settings) -> Iterator[str]:
    """Yield that NVIDIA's language processing knows English only."""
    if settings.service_enabled_asr and "en-US" not in settings.asr_language_code:
        codes = " ".join(settings.asr_language_code)
        yield f"service_enabled_nlp: it knows en-US only, which asr_language_code={codes} lacks"


def _wrong_tts(settings: Settings) -> Iterator[str]:
    """Yield what NVIDIA's synthesis models cannot meet."""
    offered = release(settings.riva_ngc_model_version).tts
    model, codes = settings.tts_model, settings.tts_language_code
    yield from _not_offered(offered, ("tts_model", model), ("tts_language_code", codes))
    refused = _is_tegra(settings) and settings.riva_tegra_platform != "thor"
    if refused and _matches(model, "tts_not_for_tegra"):
        yield f"tts_model: {model} is not prebuilt for tegra"


def _wrong_nmt(settings: Settings) -> Iterator[str]:
    """Yield that a release names no translation model of itself."""
    if not release(settings.riva_ngc_model_version).nmt:
        version = settings.riva_ngc_model_version
        yield f"service_enabled_nmt: {version} has no default; list the models in models_nmt"
