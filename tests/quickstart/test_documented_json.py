"""What `--json` prints about artefacts and settings, against the table in docs/commands.md."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from quickstart.config import SETTINGS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .conftest import CommandLine, Package

TABLE = (Path(__file__).parents[2] / "docs" / "commands.md").read_text()
EVERY = {"schema_version", "verb"}
# Rows that hold for several verbs, by their first cell.
SHARED = "init, start, status, stop, clean, rollback, verify, gc, bundle"
# Objects whose keys are the user's, or a standard's.
OPAQUE = {"schema", "values"}


def documented(row: str) -> set[str]:
    """Return the keys that a row of the table names."""
    found = re.search(rf"(?m)^\| {re.escape(row)} \| (.*) \|$", TABLE)
    assert found is not None, row
    return set(re.findall(r"`([a-z]\w*)`", found[1]))


def keys(data: Any) -> Iterator[str]:
    """Yield the keys of an object and of all that it holds."""
    if isinstance(data, list):
        for item in data:
            yield from keys(item)
    elif isinstance(data, dict):
        for key, value in data.items():
            yield key
            yield from () if key in OPAQUE else keys(value)


def told(data: Any) -> set[str]:
    """Return the keys of an object, without those that every verb has."""
    return set(keys(data)) - EVERY


def test_what_init_would_do(qs: CommandLine, package: Package) -> None:
    """Each key of `init --dry-run --json` is documented, and each documented one is there."""
    assert package.artifacts.is_dir()
    expected = documented("init, with `--dry-run`") | documented(SHARED)
    assert told(qs.json("init", "--dry-run")) == expected


def test_what_the_verbs_of_artefacts_did(qs: CommandLine, package: Package) -> None:
    """The same holds for init, verify, gc, rollback and bundles, in that order."""
    shared = documented(SHARED) - {"dry_run", "steps"}
    assert told(qs.json("init")) == documented("init") | shared
    assert told(qs.json("verify")) == documented("verify") | shared
    assert told(qs.json("gc")) == documented("gc") | shared
    package.offer(b"version two", "2")
    qs("init")
    listed = told(qs.json("rollback", "--list"))
    assert told(qs.json("rollback")) | listed | {"damaged"} == documented("rollback") | shared
    exported = told(qs.json("bundle", "export", "a.bundle"))
    assert exported == documented("bundle export") | shared
    assert told(qs.json("bundle", "import", "a.bundle")) == documented("bundle import") | shared


@pytest.mark.parametrize("verb", ["show", "validate", "diff", "schema", "example", "import"])
def test_what_config_says(qs: CommandLine, verb: str) -> None:
    """The same holds for the verbs of `config`, whose objects have the settings' names too."""
    (qs.folder / "config.sh").write_text("service_enabled_asr=true\n")
    done = qs.json("config", verb, *(["config.sh"] if verb == "import" else []))
    assert told(done) - set(SETTINGS) == documented(f"config {verb}")
