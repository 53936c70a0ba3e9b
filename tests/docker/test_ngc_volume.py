"""Models of NGC on their way into a volume."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from support.digits import ARCHIVE
from support.ngc import PERSONAL, Fault, Model, Ngc

from .conftest import store_on

if TYPE_CHECKING:
    from pathlib import Path

    from .conftest import Place

pytestmark = pytest.mark.docker


def test_a_model_of_ngc_goes_into_a_volume(volume: Place, speech: str, tmp_path: Path) -> None:
    """It is fetched once, whatever happens on the way, verified there, and not asked for again."""
    data = ARCHIVE.read_bytes()
    model = Model({"digits.rmir": data})
    volume.configure(models_asr=model.target, use_existing_rmirs="false")
    with store_on(volume.name, speech) as store:
        store.remove(["rmir/mine.rmir"])
    with Ngc(tmp_path).running() as ngc:
        ngc.offer(model)
        ngc.fail(Fault("cut", value=100_000), Fault("status", value=503, header="0"))
        done = volume("init", **ngc.environment, NGC_API_KEY=PERSONAL)
        assert done.returncode == 0, done.stderr
        assert ngc.sent["digits.rmir"] == len(data)
    assert PERSONAL not in done.stdout + done.stderr
    with store_on(volume.name, speech) as store:
        assert [archive.name for archive in store.archives()] == ["digits.rmir"]
        assert store.damage(store.shown()) == []
    assert "reused" in volume.ok("--offline", "init")
    assert not list((tmp_path / "home").rglob("digits.rmir*")), "nothing waits there any more"
