"""Fixtures over the committed tiny model; NeMo is not needed for any of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.programs import succeed

DATA = Path(__file__).parents[1] / "data"


@pytest.fixture(scope="session")
def tiny_riva() -> Path:
    return DATA / "tiny.riva"


@pytest.fixture(scope="session")
def tiny_rmir(tiny_riva: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An RMIR with two pipelines: tiny-streaming and tiny-offline."""
    rmir = tmp_path_factory.mktemp("rmir") / "tiny.rmir"
    both = ("--name=tiny", "--offline", "--streaming=True")
    succeed("riva-build", "speech_recognition", rmir, tiny_riva, *both)
    return rmir


@pytest.fixture(scope="session")
def tiny_repository(tiny_rmir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    repository = tmp_path_factory.mktemp("repository") / "models"
    succeed("riva-deploy", tiny_rmir, repository)
    return repository
