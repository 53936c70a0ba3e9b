from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from quickstart import store as stores
from quickstart.backends.base import Model
from quickstart.config import Settings
from quickstart.errors import ArtifactMissingError, RivaQsError
from quickstart.files import sha256
from quickstart.store import Stamp, Store, agent_client, locking

if TYPE_CHECKING:
    from pathlib import Path

ENGINE = {"riva_speech": "1"}
MODEL = Model("m", "asr", "online", "en-US", "a.rmir", ("m-streaming",))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(tmp_path / "location")
    store.rmir.mkdir(parents=True)
    (store.rmir / "a.rmir").write_bytes(b"archive")
    return store


def deploy(store: Store, models: tuple[Model, ...] = (MODEL,)) -> Stamp:
    with store.draft() as draft:
        (store.root / draft / "models" / "m-streaming").mkdir(parents=True)
        return store.publish(draft, store.archives(), ENGINE, models)


def names(store: Store) -> set[str]:
    return {path.name for path in (store.root / "generations").iterdir()}


def test_before_the_first_deploy_nothing_is_current(store: Store) -> None:
    """A fresh location has no generation, and looking makes none."""
    assert store.current() is None
    assert not (store.root / "generations").exists()


def test_a_published_draft_is_what_models_shows(store: Store) -> None:
    """After a deploy `models` is a relative link to its repository, and the stamp tells all."""
    stamp = deploy(store)
    assert store.current() == stamp
    assert (store.models / "m-streaming").is_dir()
    assert not store.models.readlink().is_absolute()
    assert stamp.rmirs[0].name == "a.rmir"
    assert names(store) == {stamp.generation}


def test_a_location_may_be_moved(store: Store, tmp_path: Path) -> None:
    """Nothing in a location names where it is, so it can be moved or mounted elsewhere."""
    stamp = deploy(store)
    moved = Store(store.root.rename(tmp_path / "moved"))
    assert moved.current() == stamp
    assert (moved.models / "m-streaming").is_dir()


def test_a_draft_that_is_not_published_vanishes(store: Store) -> None:
    """A deploy that fails leaves the generation before untouched, and no draft."""
    stamp = deploy(store)
    with pytest.raises(RivaQsError):
        deploy(store, models=())
    assert store.current() == stamp
    assert names(store) == {stamp.generation}


@pytest.mark.parametrize("models", [(), (MODEL, Model("x", "asr", "online", "", "", ("gone",)))])
def test_a_draft_is_checked_against_its_report(store: Store, models: tuple[Model, ...]) -> None:
    """A deploy that did not make what it reports is not published."""
    with pytest.raises(RivaQsError, match="did not make"):
        deploy(store, models)
    assert store.current() is None


def test_the_generation_before_is_kept_and_older_ones_swept(store: Store) -> None:
    """The current and the previous generation stay, and what a server uses; others go."""
    stamps = [deploy(store) for _ in range(4)]
    (store.root / "generations" / ".partial-1").mkdir()
    (store.rmir / "b.rmir.partial").touch()
    (store.root / ".models-1").symlink_to("x")
    store.remove(store.leftovers(in_use=stamps[0].generation))
    assert names(store) == {stamps[i].generation for i in (0, 2, 3)}
    assert store.current() == stamps[3]
    assert sorted(path.name for path in store.root.iterdir()) == [
        "generations",
        "lock.json",
        "models",
        "rmir",
    ]


def test_a_folder_of_somebody_else_is_left_alone(store: Store) -> None:
    """A real folder `models`, or a link elsewhere, is named in an error and never touched."""
    (store.models / "precious").mkdir(parents=True)
    with pytest.raises(RivaQsError, match=f"{store.models} is there and was not made by riva-qs"):
        deploy(store)
    assert (store.models / "precious").is_dir()
    assert "models" not in store.belongings()
    store.remove(["models"])
    store.models.symlink_to("/somewhere")
    with pytest.raises(RivaQsError, match="was not made by riva-qs"):
        store.current()


@pytest.mark.parametrize("damage", ["stamp.json", "models/m-streaming", "."])
def test_a_damaged_generation_says_how_to_repair_it(store: Store, damage: str) -> None:
    """A generation with parts gone is not served; the error says to deploy again."""
    store.remove([f"generations/{deploy(store).generation}/{damage}"])
    with pytest.raises(ArtifactMissingError) as caught:
        store.current()
    assert "riva-qs init" in caught.value.hint


def test_a_stamp_that_is_no_stamp_is_damage(store: Store) -> None:
    """Whatever is in stamp.json, it is never a traceback."""
    path = store.root / "generations" / deploy(store).generation / "stamp.json"
    for text in ("", "[]", "{}", '{"rmirs": 1}', "null"):
        path.write_text(text)
        with pytest.raises(ArtifactMissingError):
            store.current()


def test_a_second_one_is_told_who_holds_the_lock(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two at work in one location is refused, with verb and process of the first."""
    monkeypatch.setattr(locking, "PATIENCE", 0.2)
    script = (
        "import sys, pathlib, time; from quickstart.store import Store\n"
        "with Store(pathlib.Path(sys.argv[1])).locked('init'):\n"
        "    print('locked', flush=True); time.sleep(60)\n"
    )
    command = [sys.executable, "-c", script, str(store.root)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) as child:
        assert child.stdout is not None
        child.stdout.readline()
        with pytest.raises(RivaQsError) as caught, store.locked("start"):
            pass
        child.kill()
    assert f"riva-qs init (pid {child.pid}) is at work in {store.root}" in caught.value.message
    with store.locked("start"):
        assert json.loads((store.root / ".lock").read_text())["verb"] == "start"


def test_only_what_riva_qs_fetched_is_its_own(store: Store) -> None:
    """An archive is ours only while it is as we left it; the user's are never among ours."""
    (store.rmir / "ours.rmir").write_bytes(b"x")
    store.remember_fetched("ours.rmir", sha256(store.rmir / "ours.rmir"))
    store.remember_fetched("a.rmir", "another hash")
    assert store.fetched() == ["rmir/ours.rmir"]
    for text in ("broken", "[]", ""):
        (store.rmir / ".fetched.json").write_text(text)
        assert store.fetched() == []


def test_a_name_is_a_folder_in_the_data_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A plain name lives under XDG_DATA_HOME, or ~/.local/share without it; a path is itself."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_DATA_HOME", raising=False)
    settings = Settings(riva_model_loc="name")
    assert stores.locate(settings).root == tmp_path / ".local/share/riva-qs/name"
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    assert stores.locate(settings).root == tmp_path / "data/riva-qs/name"
    assert str(stores.locate(Settings(riva_model_loc="/a/b")).root) == "/a/b"


def test_the_agent_needs_nothing_but_what_is_sent(store: Store) -> None:
    """What goes into a container runs on a bare Python, and does what is done to a folder here."""
    generation = deploy(store).generation
    code = agent_client.modules()
    asked = json.dumps({"do": "generations", "with": []}).encode() + b"\n"
    command = [sys.executable, "-I", "-S", *agent_client.COMMAND[1:-1], str(store.root)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as agent:
        assert agent.stdin is not None
        assert agent.stdout is not None
        agent.stdin.write(b"%d\n%s%s" % (len(code), code, asked))
        agent.stdin.flush()
        assert json.loads(agent.stdout.readline()) == {"hello": "riva-qs store agent"}
        assert json.loads(agent.stdout.readline()) == {"result": [generation]}
