"""Properties of the code itself."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

import quickstart

PACKAGE = Path(quickstart.__file__).parent
MODULES = sorted(PACKAGE.rglob("*.py"))
IMPORTERS = {
    "docker": {f"backends/engine/{name}.py" for name in ("__init__", "connection", "request")},
    "typer": {
        "cli.py",
        *(f"commands/{n}.py" for n in ("bench", "config", "image", "service", "session", "store")),
    },
    "dotenv": {"config/layers.py"},
    "rich": {"console.py"},
    "grpc": {"bench/wire.py", "client.py"},
    "riva": {"bench/wire.py", "client.py"},
    "requests": {"sources/network.py", "sources/failures.py"},
    "urllib3": {"backends/engine/connection.py", "sources/network.py", "sources/failures.py"},
    "ngcsdk": {"sources/account.py"},
}


def imported(path: Path) -> set[str]:
    """Return the top-level names of what a module imports, wherever it does."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add((node.module or "").split(".")[0])
    return names


def test_each_dependency_has_one_importer() -> None:
    """A third-party package is imported by one module, and by no other; the engine by none."""
    for path in MODULES:
        foreign = imported(path) - set(sys.stdlib_module_names) - {"quickstart"}
        for name in foreign:
            assert str(path.relative_to(PACKAGE)) in IMPORTERS.get(name, set()), (path, name)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_functions_stay_short(path: Path) -> None:
    """No function is longer than a screen, and no command than 25 lines of code."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef):
            body = (node.end_lineno or 0) - node.body[0].lineno + 1
            assert body <= (25 if "commands" in path.parts else 40), node.name


def test_only_the_console_and_typer_print() -> None:
    """Output goes through console.py alone."""
    for path in MODULES:
        text = path.read_text()
        writes = "sys.stdout.write" in text or "sys.stderr.write" in text
        assert writes == (path.name == "console.py"), path
