"""kill -9 at any moment of init, with the real engine: what worked before still starts."""

from __future__ import annotations

import os
import shutil
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from quickstart.store import Store
from support.digits import ARCHIVE, SAID, SAMPLE
from support.killing import Killer

from .conftest import INSTALLED

if TYPE_CHECKING:
    from .conftest import CommandLine


@pytest.fixture
def real(bare: CommandLine, free_port: int) -> CommandLine:
    """The command line with the real engine, and a model of some file that must be fetched."""
    bare.environment["PYTHONPATH"] = os.pathsep.join([str(INSTALLED), str(INSTALLED / "images")])
    (bare.folder / "config.env").write_text(
        f"riva_model_loc=./models-here\nbackend=embedded\nreadiness_audio={SAMPLE}\n"
        f"riva_speech_api_port={free_port}\nriva_speech_api_http_port=0\n"
    )
    return bare


def offer(qs: CommandLine, number: int) -> None:
    """Let the settings ask for an archive that was not there before."""
    from quickstart.files import sha256  # noqa: PLC0415 - as the program hashes

    for old in [*qs.folder.glob("v*.rmir"), *qs.location.glob("rmir/*.rmir")]:
        old.unlink()
    path = Path(shutil.copy(ARCHIVE, qs.folder / f"v{number}.rmir"))
    reference = f"file://{path}#sha256={sha256(path)}"
    qs.environment["RIVA_QS_MODELS_ASR"] = reference


@pytest.mark.timeout(5400)
@pytest.mark.skipif(not find_spec("onnxruntime"), reason="the engine is not installed")
def test_a_folder_survives_kills_at_any_moment(real: CommandLine, kills: int) -> None:
    """After each kill the generation that is shown is whole, and its server hears the sample."""
    offer(real, 0)
    killer = Killer(real.command("init"), real.folder, real.environment)
    killer.whole()
    store, seen = Store(real.location), set()
    for _ in killer.until(kills, lambda number: offer(real, number)):
        seen.add(store.shown())
        assert store.damage(store.shown()) == []
        try:
            done = real("start")
            assert done.returncode == 0, done.stderr
            assert SAID in done.stdout
        finally:
            real("stop")
    killer.whole()
    assert len(list((real.location / "generations").iterdir())) <= 2
    assert not list(real.location.rglob("*.partial*"))
