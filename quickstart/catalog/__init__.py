"""Which artefacts the settings need; the embedded ones are data: `artifacts/catalog.json`.

A model is replaced by its file and its line in that table; no code names one. What NVIDIA's names
follow from is in `official.py`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING

from quickstart.catalog import locators, official
from quickstart.config.values import nearest
from quickstart.errors import ArtifactMissingError, ConfigError, UnsupportedError, UsageError

if TYPE_CHECKING:
    from pathlib import Path

    from quickstart.config import Settings

SERVICES = ("asr", "nlp", "tts", "nmt")


@dataclass(frozen=True)
class Artifact:
    """One thing to fetch: what it is for, where it comes from and, where known, what it must be.

    Attributes:
        service: The service that asked for it: asr, nlp, tts or nmt.
        language: Its language code; empty where the reference does not tell.
        model: Its model, as the settings name it; empty where the reference does not tell.
        name: What it is called where it comes from.
        version: Its version; for an address the first digits of the hash.
        source: "embedded", "ngc", "http" or "file".
        reference: The NGC target, the address without its hash, or the embedded name.
        file: The file to fetch, where the artefact is known to be one.
        size: The size of that file in bytes, 0 where it is not known.
        sha256: The hash of that file in hex, empty where it is not known.
    """

    service: str
    language: str
    model: str
    name: str
    version: str
    source: str
    reference: str
    file: str = ""
    size: int = 0
    sha256: str = ""


@cache
def table() -> tuple[Artifact, ...]:
    """Return the whole embedded catalogue."""
    text = files("quickstart").joinpath("artifacts/catalog.json").read_text("utf-8")
    rows = json.loads(text)["artifacts"]
    return tuple(Artifact(**row, reference=row["name"]) for row in rows)


def enabled_services(settings: Settings) -> tuple[str, ...]:
    """Return the services that the settings switch on, checked to be ones that can be had."""
    enabled = tuple(s for s in SERVICES if getattr(settings, f"service_enabled_{s}"))
    if not enabled:
        raise UsageError("no service is enabled", "set service_enabled_asr=true")
    known = set(SERVICES) if settings.image == "riva" else {a.service for a in table()}
    missing = [f"service_enabled_{s}" for s in enabled if s not in known | _listed(settings)]
    if missing:
        message = f"the embedded catalogue has no models for {', '.join(missing)} yet"
        raise UnsupportedError(message, f"set {'=false, '.join(missing)}=false")
    return enabled


def wanted(settings: Settings) -> tuple[Artifact, ...]:
    """Return the artefacts that the settings ask for, each once.

    Raises:
        ArtifactMissingError: The embedded catalogue has no such model in that language.
        ConfigError: NVIDIA's models cannot meet the settings; every reason is listed.
        UnsupportedError: A service is switched on for which there are no models.
        UsageError: No service is switched on.
    """
    enabled = enabled_services(settings)
    if settings.use_existing_rmirs:
        return ()
    computed = [s for s in enabled if settings.image == "riva" and s not in _listed(settings)]
    problems = [text for service in computed for text in official.problems(settings, service)]
    if problems:
        raise ConfigError(problems, "riva-qs config show --origin says where each value came from")
    unique: dict[str, Artifact] = {}
    for artifact in (a for service in enabled for a in _of_service(settings, service)):
        # Two services may name one model, which the official script fetches twice.
        unique.setdefault(artifact.reference, artifact)
    return tuple(unique.values())


def cautions(settings: Settings) -> tuple[str, ...]:
    """Return what is allowed, and yet may surprise."""
    others = [code for code in settings.asr_language_code if code != "en-US"]
    nlp = settings.image == "riva" and settings.service_enabled_nlp
    if nlp and settings.service_enabled_asr and others and len(settings.asr_language_code) > 1:
        return (f"language processing knows en-US only, not {', '.join(others)}",)
    return ()


def _listed(settings: Settings) -> set[str]:
    """Return the services whose models the settings list themselves."""
    return {service for service in SERVICES if getattr(settings, f"models_{service}")}


def _of_service(settings: Settings, service: str) -> tuple[Artifact, ...]:
    """Return the artefacts of one service."""
    listed: tuple[str, ...] = getattr(settings, f"models_{service}")
    if listed:
        return tuple(_referenced(service, text) for text in listed)
    if settings.image == "riva":
        return tuple(_official(service, found) for found in official.named(settings, service))
    model = settings.asr_acoustic_model
    return tuple(_embedded(model, language) for language in settings.asr_language_code)


def _referenced(service: str, text: str) -> Artifact:
    """Return the artefact that a reference names."""
    found = locators.parse(text)
    if found.source != "embedded":
        return Artifact(service, "", "", **vars(found))
    for artifact in table():
        if artifact.name == text:
            return artifact
    names = [artifact.name for artifact in table()]
    message = f'the embedded catalogue has no "{text}"{nearest(text, names)}'
    raise ArtifactMissingError(f"{message}; it has {', '.join(names)}", "riva-qs config show")


def _official(service: str, found: official.Named) -> Artifact:
    """Return one of NVIDIA's models as an artefact."""
    located = locators.parse(found.reference)
    return Artifact(service, found.language, found.model, **vars(located))


def _embedded(model: str, language: str) -> Artifact:
    """Return the embedded speech recognition model of a language."""
    for artifact in table():
        if (artifact.service, artifact.model, artifact.language) == ("asr", model, language):
            return artifact
    choices = ", ".join(f"{a.model} in {a.language}" for a in table() if a.service == "asr")
    near = nearest(model, [a.model for a in table() if a.model != model])
    raise ArtifactMissingError(
        f'the catalogue has no asr_acoustic_model "{model}" in {language}; it has {choices}{near}',
        "set asr_acoustic_model and asr_language_code to one of these, or"
        " put your own archive into rmir/ and set use_existing_rmirs=true",
    )


def sample() -> Path:
    """Return the recording that the distribution brings along.

    Raises:
        ArtifactMissingError: This installation has none.
    """
    from pathlib import Path

    folder = Path(str(files("quickstart"))) / "samples"
    recordings = sorted(p for p in folder.glob("*") if p.suffix in {".wav", ".flac"})
    if not recordings:
        raise ArtifactMissingError(
            f"{folder} holds no recording", "set readiness_audio to one of yours"
        )
    return recordings[0]
