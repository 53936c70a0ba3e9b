"""Generations over time: rollback, verify, gc, what they share, and the lock file."""

from __future__ import annotations

import hashlib
import io
import json
import subprocess
import sys
import tarfile
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from .conftest import CommandLine, Package


def deploy(qs: CommandLine, data: bytes) -> str:
    (qs.location / "rmir" / "mine.rmir").write_bytes(data)
    done = qs.json("init")
    return str(done["generation"])


def shown(qs: CommandLine) -> str:
    return (qs.location / "models").resolve().parent.name


def model_file(qs: CommandLine, generation: str) -> Path:
    return qs.location / "generations" / generation / "models/mine-streaming/config.pbtxt"


def overwrite(path: Path, data: bytes) -> None:
    path.chmod(0o644)
    path.write_bytes(data)


def test_rollback_and_forward_again(qs: CommandLine) -> None:
    """rollback shows the generation before; a named one, or its beginning, shows that one."""
    first, second = deploy(qs, b"one"), deploy(qs, b"two")
    assert f"generation {first}" in qs("rollback", "--dry-run").stdout
    assert shown(qs) == second
    done = qs("rollback")
    assert (done.returncode, shown(qs)) == (0, first)
    assert second in done.stdout
    assert json.loads((qs.location / "lock.json").read_text())["archives"][0]["size"] == 3
    assert qs("rollback", second).returncode == 0
    assert shown(qs) == second
    rows = qs.json("rollback", "--list")["generations"]
    assert [(row["generation"], row["current"]) for row in rows] == [(first, False), (second, True)]


def test_rollback_says_what_the_running_server_serves(qs: CommandLine) -> None:
    """A server that runs goes on with its models; rollback says so, and start restarts it."""
    deploy(qs, b"one")
    deploy(qs, b"two")
    assert qs("start").returncode == 0
    assert "riva-qs start restarts it" in qs("rollback").stdout
    assert qs.json("start")["action"] == "restarted"


def test_rollback_to_nothing(qs: CommandLine) -> None:
    """Without a generation before, or of that name, rollback exits 3 and changes nothing."""
    assert qs("rollback").returncode == 3
    first = deploy(qs, b"one")
    for arguments in ([], ["2001"], ["../.."]):
        done = qs("rollback", *arguments)
        assert done.returncode == 3
        assert "rollback --list" in done.stderr
    assert shown(qs) == first


def test_as_many_generations_stay_as_were_asked_for(qs: CommandLine) -> None:
    """keep_generations says how many init keeps; gc --keep makes them fewer, with sizes."""
    qs.options = ["--set", "keep_generations=3"]
    made = [deploy(qs, b"%d" % number) for number in range(5)]
    kept = [row["generation"] for row in qs.json("rollback", "--list")["generations"]]
    assert kept == made[1:]
    plan = qs("gc", "--keep", "1", "--dry-run").stdout
    assert plan.count("would remove") == 2
    assert made[1] in plan
    assert qs("gc", "--keep", "1").returncode == 0
    assert sorted(p.name for p in (qs.location / "generations").iterdir()) == made[3:]
    assert qs("gc", "--keep", "0").returncode == 0
    assert [p.name for p in (qs.location / "generations").iterdir()] == [made[4]]
    assert "nothing to remove" in qs("gc", "--keep", "0").stdout


def test_gc_removes_what_killed_runs_left(qs: CommandLine) -> None:
    """Drafts, half downloads and staged ones go; the models and the user's archive stay."""
    generation = deploy(qs, b"one")
    (qs.location / "generations/.partial-1/models").mkdir(parents=True)
    (qs.location / "rmir/b.rmir.partial").write_bytes(bytes(2000))
    staged = qs.folder / "home/.cache/riva-qs/staged/aa"
    staged.mkdir(parents=True)
    (staged / "c.rmir").write_bytes(bytes(3000))
    assert "2.0 kB" in qs("gc", "--dry-run").stdout
    assert qs.json("gc")["freed"] == 5000
    assert not staged.exists()
    assert shown(qs) == generation
    assert qs("verify").returncode == 0
    assert [p.name for p in (qs.location / "rmir").iterdir() if p.suffix == ".rmir"]


def test_gc_leaves_what_another_run_is_staging(qs: CommandLine) -> None:
    """What another location's init or import is staging stays; once it is killed, it goes."""
    used, left = (qs.folder / "home/.cache/riva-qs/staged" / name for name in ("aa", ".partial-bb"))
    program = (
        "import sys; from pathlib import Path; from quickstart.store.staging import claim;"
        "held = [claim(Path(each)) for each in sys.argv[1:]]; print(flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", program, str(used), str(left)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, env=qs.environment, stdin=pipe, stdout=pipe) as other:
        assert other.stdout
        other.stdout.readline()
        (used / "c.rmir").write_bytes(bytes(3000))
        assert "nothing to remove" in qs("gc").stdout
        assert (used / "c.rmir").exists()
        other.kill()
        other.wait()
    assert qs.json("gc")["freed"] == 3000
    assert not used.exists()
    assert not left.exists()


def test_equal_files_are_stored_once(qs: CommandLine) -> None:
    """A file that two generations share is one file, and nobody may write to it."""
    first, second = deploy(qs, b"one"), deploy(qs, b"two")
    (qs.location / "rmir/other.rmir").write_bytes(b"x")
    third = qs.json("init")["generation"]
    assert model_file(qs, second).samefile(model_file(qs, third))
    assert not (qs.location / "generations" / first).exists()
    assert not model_file(qs, third).stat().st_mode & 0o222


def test_a_damaged_file_does_not_spread(qs: CommandLine) -> None:
    """A new generation never takes a damaged file of an older one for its own."""
    overwrite(model_file(qs, deploy(qs, b"one")), b"# damaged!!!\n")
    (qs.location / "rmir/other.rmir").write_bytes(b"x")
    fresh = qs.json("init")["generation"]
    assert model_file(qs, fresh).read_bytes() == b"# b'one'\n"


@pytest.mark.parametrize("how", ["altered", "longer", "gone"])
def test_verify_finds_damage_and_repairs_it(qs: CommandLine, how: str) -> None:
    """A deployed file that changed is exit code 9 with its name; --repair deploys it again."""
    generation = deploy(qs, b"one")
    path = model_file(qs, generation)
    if how == "gone":
        path.unlink()
    else:
        overwrite(path, b"# b'0ne'\n" if how == "altered" else b"# b'one'\n#\n")
    done = qs("verify")
    assert done.returncode == 9
    assert "mine-streaming/config.pbtxt" in done.stdout
    assert shown(qs) == generation
    assert qs("verify", "--repair").returncode == 0
    assert shown(qs) != generation
    assert qs("verify").returncode == 0
    assert qs("start").returncode == 0


def test_verify_repairs_an_older_generation_by_removing_it(qs: CommandLine) -> None:
    """A damaged generation that is not shown is no use to go back to."""
    first, second = deploy(qs, b"one"), deploy(qs, b"two")
    overwrite(model_file(qs, first), b"# b'0ne'\n")
    assert first in qs("verify").stdout
    assert qs("verify", "--repair").returncode == 0
    assert [p.name for p in (qs.location / "generations").iterdir()] == [second]


@pytest.mark.usefixtures("package")
def test_verify_fetches_a_damaged_archive_again(qs: CommandLine) -> None:
    """A fetched archive with other bytes is damage, and --repair brings the right one."""
    qs("init")
    archive = qs.location / "rmir/test.rmir"
    for damage in (lambda: archive.write_bytes(b"version 0ne"), archive.unlink):
        damage()
        assert "rmir/test.rmir" in qs("verify").stdout
        assert qs("verify", "--repair").returncode == 0
        assert archive.read_bytes() == b"version one"
    assert qs("verify").returncode == 0


def test_a_user_s_archive_cannot_be_repaired(qs: CommandLine) -> None:
    """What only the user has is named, and left as it is."""
    deploy(qs, b"one")
    (qs.location / "rmir/mine.rmir").write_bytes(b"0ne")
    assert qs("verify").returncode == 9
    done = qs("verify", "--repair")
    assert done.returncode == 9
    assert "only you have it" in done.stderr
    assert (qs.location / "rmir/mine.rmir").read_bytes() == b"0ne"


def test_a_lock_file_is_reproduced_or_refused(
    qs: CommandLine, package: Package, tmp_path: Path
) -> None:
    """init --locked makes the same from the same, and exits 9 when anything else would come."""
    assert qs("init", "--locked").returncode == 3
    qs("init")
    lock = json.loads((qs.location / "lock.json").read_text())
    assert lock["artifacts"][0]["files"][0]["name"] == "test.rmir"
    assert lock["engine"]["riva_speech"]
    kept = tmp_path / "kept.json"
    kept.write_text(json.dumps(lock))
    qs("clean", "--yes")
    assert qs("init", "--lock-file", str(kept)).returncode == 0
    assert json.loads((qs.location / "lock.json").read_text()) == lock
    assert "reused" in qs("init", "--locked").stdout
    package.offer(b"version two", "1")
    (qs.location / "rmir/test.rmir").unlink()
    assert qs("init", "--locked").returncode == 9
    package.offer(b"version one", "2")
    assert "cannot be reproduced" in qs("init", "--locked").stderr
    package.offer(b"version one", "1")
    (qs.location / "rmir/extra.rmir").write_bytes(b"x")
    assert qs("init", "--locked").returncode == 9
    for text in ("", "[" * 100_000, "[]", '{"schema_version": 99}', '{"schema_version": 1}'):
        kept.write_text(text)
        done = qs("init", "--lock-file", str(kept))
        assert done.returncode in {3, 9}
        assert "Traceback" not in done.stderr


def test_prebuilt_models_are_unpacked(qs: CommandLine) -> None:
    """An archive in prebuilt/ becomes a generation without a deploy, whole or not at all."""
    (qs.location / "rmir/mine.rmir").unlink()
    archive = qs.location / "prebuilt/models_v2.19.tar.gz"
    archive.parent.mkdir()
    files = {"a-asr-streaming/config.pbtxt": b'backend: "onnxruntime"\n'}
    write(archive, files)
    done = qs("init")
    assert done.returncode == 1, "the model has no weights"
    assert "a-asr-streaming has no 1/model.onnx" in done.stderr
    write(archive, {**files, "a-asr-streaming/1/model.onnx": b"x"})
    made = qs.json("init")
    assert [model["name"] for model in made["models"]] == ["a-asr-streaming"]
    before = shown(qs)
    write(archive, {"../escaped/file": b"x"})
    assert qs("init").returncode == 9
    assert shown(qs) == before
    assert not (qs.location / "escaped").exists()


def write(path: Path, files: dict[str, bytes]) -> None:
    with tarfile.open(path, "w:gz") as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))


def test_one_failed_fetch_of_several(qs: CommandLine, tmp_path: Path) -> None:
    """When one of three cannot be had, nothing wrong takes its name, and the next init goes on."""
    qs.options = ["--set", "use_existing_rmirs=false"]
    (qs.location / "rmir/mine.rmir").unlink()
    names = ["one", "two", "three"]
    references = []
    for name in names:
        path = tmp_path / f"{name}.rmir"
        path.write_bytes(name.encode())
        references.append(f"file://{path}#sha256={digest(name)}")
    (tmp_path / "two.rmir").write_bytes(b"0wt")
    qs.options += ["--set", f"models_asr={' '.join(references)}"]
    failed = qs("init")
    assert failed.returncode == 9
    assert "two.rmir is not the file that was promised" in failed.stderr
    assert not (qs.location / "rmir/two.rmir").exists()
    (tmp_path / "two.rmir").write_bytes(b"two")
    done = qs("init")
    assert done.returncode == 0, done.stderr
    fetched = {path.stem for path in (qs.location / "rmir").glob("*.rmir")}
    assert fetched == set(names)
    assert "one.rmir: there already, reused" in qs("init").stdout
    (tmp_path / "three.rmir").unlink()
    assert qs("init").returncode == 3


def digest(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()
