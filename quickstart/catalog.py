"""Which artefacts a service in a language needs; the table is data: `artifacts/catalog.json`.

A model is replaced by its file and its line in that table; no code names one.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING

from quickstart.errors import ArtifactMissingError, UnsupportedError, UsageError

if TYPE_CHECKING:
    from pathlib import Path

    from quickstart.config import Settings


@dataclass(frozen=True)
class Artifact:
    """One archive of the catalogue: what it is for, where it comes from and what it must be."""

    service: str
    language: str
    model: str
    name: str
    version: str
    source: str
    file: str
    size: int
    sha256: str


@cache
def table() -> tuple[Artifact, ...]:
    """Return the whole catalogue."""
    text = files("quickstart").joinpath("artifacts/catalog.json").read_text("utf-8")
    return tuple(Artifact(**row) for row in json.loads(text)["artifacts"])


def enabled_services(settings: Settings) -> tuple[str, ...]:
    """Return the services that the settings switch on, checked to be ones that can be had."""
    switches = {
        "asr": settings.service_enabled_asr,
        "nlp": settings.service_enabled_nlp,
        "tts": settings.service_enabled_tts,
        "nmt": settings.service_enabled_nmt,
    }
    enabled = tuple(service for service, on in switches.items() if on)
    if not enabled:
        raise UsageError("no service is enabled", "set service_enabled_asr=true")
    known = {artifact.service for artifact in table()}
    missing = [f"service_enabled_{service}" for service in enabled if service not in known]
    if missing:
        message = f"the embedded backend has no models for {', '.join(missing)} yet"
        raise UnsupportedError(message, f"set {'=false, '.join(missing)}=false")
    return enabled


def wanted(settings: Settings) -> tuple[Artifact, ...]:
    """Return the artefacts that the settings ask for.

    Raises:
        ArtifactMissingError: The catalogue has no such model in that language.
    """
    enabled = enabled_services(settings)
    if settings.use_existing_rmirs:
        return ()
    model, language = settings.asr_acoustic_model, settings.asr_language_code
    chosen = tuple(
        artifact
        for artifact in table()
        if (artifact.service, artifact.model, artifact.language) == ("asr", model, language)
    )
    if "asr" in enabled and not chosen:
        choices = ", ".join(f"{a.model} in {a.language}" for a in table() if a.service == "asr")
        raise ArtifactMissingError(
            f'the catalogue has no asr_acoustic_model "{model}" in {language}; it has {choices}',
            "set asr_acoustic_model and asr_language_code to one of these, or"
            " put your own archive into rmir/ and set use_existing_rmirs=true",
        )
    return chosen


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
