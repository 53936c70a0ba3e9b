from __future__ import annotations

import re
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import pytest

from quickstart import catalog, transfer
from quickstart.config import Settings, load
from quickstart.errors import ArtifactMissingError, UnsupportedError, UsageError
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
            assert (path.stat().st_size, transfer.sha256(path)) == (artifact.size, artifact.sha256)


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
        with pytest.raises(ArtifactMissingError, match="it has digits in en-US"):
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
        source_of(replace(catalog.table()[0], source="elsewhere"))
