from __future__ import annotations

import re
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import pytest

from quickstart import catalog
from quickstart.config import Settings, load
from quickstart.errors import ArtifactMissingError, UnsupportedError, UsageError
from quickstart.files import sha256
from quickstart.sources import source_of


def test_the_default_settings_name_one_artefact() -> None:
    """What is configured by default is in the catalogue."""
    assert len(catalog.wanted(Settings())) == 1


def test_every_row_is_complete() -> None:
    """Each artefact of the table is one that can be fetched and checked."""
    for artifact in catalog.table():
        assert artifact.file.endswith(".rmir")
        assert Path(artifact.file).name == artifact.file
        assert artifact.size > 0
        assert re.fullmatch(r"[0-9a-f]{64}", artifact.sha256)


def test_packaged_artefacts_are_those_of_the_table() -> None:
    """What the distribution brings along has the size and the hash of its row."""
    for artifact in catalog.table():
        if artifact.source == "embedded":
            path = Path(str(files("quickstart"))) / "artifacts" / artifact.file
            assert (path.stat().st_size, sha256(path)) == (artifact.size, artifact.sha256)


def test_own_archives_need_nothing_from_the_catalogue() -> None:
    """With use_existing_rmirs nothing is fetched, whatever the model is called."""
    settings = Settings(use_existing_rmirs=True, asr_acoustic_model="mine")
    assert catalog.wanted(settings) == ()


def test_an_unknown_model_is_answered_with_those_there_are() -> None:
    """A model or language that the catalogue lacks is an error that lists its models."""
    for settings in (
        Settings(asr_acoustic_model="conformer"),
        Settings(asr_language_code=("de-DE",)),
    ):
        with pytest.raises(ArtifactMissingError, match="it has english in en-US"):
            catalog.wanted(settings)


@pytest.mark.parametrize("service", ["nlp", "tts", "nmt"])
def test_services_without_a_model_are_unsupported(service: str) -> None:
    """A service that cannot be had yet is an error that names its key."""
    key = f"service_enabled_{service}"
    with pytest.raises(UnsupportedError, match=key) as caught:
        catalog.wanted(load(overrides=[f"{key}=true"], environ={}).settings)
    assert f"{key}=false" in caught.value.hint


def test_no_service_at_all_is_a_mistake() -> None:
    """Settings that switch everything off ask for nothing."""
    with pytest.raises(UsageError, match="no service is enabled"):
        catalog.wanted(Settings(service_enabled_asr=False))


def test_a_source_that_is_not_built_is_unsupported() -> None:
    """An artefact may name a source of a later version, which is told."""
    with pytest.raises(UnsupportedError, match="elsewhere"):
        source_of(replace(catalog.table()[0], source="elsewhere"), Settings())


@pytest.mark.parametrize("image", ["open", "riva"])
def test_references_are_taken_as_they_are(image: str) -> None:
    """models_* name what is fetched, wherever it is, and each thing once."""
    digest = "ab" * 32
    listed = (
        "nvidia/riva/rmir_a:1",
        f"https://host/b.rmir#sha256={digest}",
        f"file:///c/c.rmir#sha256={digest}",
        "asr_english_en_us",
        "nvidia/riva/rmir_a:1",
    )
    settings = Settings(
        image=image, service_enabled_nlp=False, service_enabled_tts=False, models_asr=listed
    )
    found = catalog.wanted(settings)
    assert [a.source for a in found] == ["ngc", "http", "file", "embedded"]
    assert [a.reference for a in found][1:3] == ["https://host/b.rmir", "file:///c/c.rmir"]
    assert [a.sha256 for a in found][:3] == ["", digest, digest]
    assert found[3] in catalog.table()


def test_a_reference_makes_a_service_possible() -> None:
    """With image=open too, a service can be switched on with an archive of one's own."""
    settings = Settings(
        service_enabled_asr=False, service_enabled_tts=True, models_tts=("nvidia/riva/rmir_t:1",)
    )
    assert [(a.service, a.name) for a in catalog.wanted(settings)] == [("tts", "rmir_t")]


def test_an_unknown_embedded_name_is_answered_with_the_nearest() -> None:
    """A plain name must be one of the embedded catalogue."""
    with pytest.raises(ArtifactMissingError, match=r"did you mean asr_english_en_us\?"):
        catalog.wanted(Settings(models_asr=("asr_english_en",)))


def test_every_language_must_be_there() -> None:
    """Each of several languages needs a model of its own."""
    with pytest.raises(ArtifactMissingError, match='"english" in de-DE'):
        catalog.wanted(Settings(asr_language_code=("en-US", "de-DE")))
