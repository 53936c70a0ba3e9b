"""Our images: their table, and the context that an engine builds them of."""

from __future__ import annotations

import io
import re
import sys
import tarfile
from pathlib import Path

import pytest

from quickstart import images
from quickstart.errors import UsageError

if sys.version_info >= (3, 11):
    import tomllib
else:
    tomllib = pytest.importorskip("tomli")

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
ENGINE = tomllib.loads((ROOT / "images" / "speech" / "pyproject.toml").read_text())["project"]


def test_requirements_are_those_of_the_engine() -> None:
    """An image installs what the extras `client` and `engine` name, but for ONNX Runtime."""
    extras = PROJECT["optional-dependencies"]
    named = {*extras["client"], *extras["engine"]}
    wanted = {line for line in named if not re.match(r"riva-qs\[|onnxruntime", line)}
    text = (ROOT / "images" / "speech" / "requirements.txt").read_text()
    assert {line for line in text.splitlines() if line and not line.startswith("#")} == wanted


def test_the_servicemaker_variant_has_what_nemo2riva_needs() -> None:
    """It installs the extra `nemo`, and stands on what the variant `cpu` does."""
    row, plain = images.choose("servicemaker", ""), images.choose("cpu", "")
    wanted = set(PROJECT["optional-dependencies"]["nemo"]) - {"riva-qs[engine]"}
    assert wanted <= set(row.packages.split())
    assert (row.runtime, row.builder, row.onnxruntime) == (
        plain.runtime,
        plain.builder,
        plain.onnxruntime,
    )
    arguments = images.options(row, images.Bases(), "")["buildargs"]
    assert (arguments["PACKAGES"], arguments["TORCH"]) == (row.packages, row.torch)
    assert "/cpu " in row.torch, "PyPI's own build brings gigabytes of CUDA libraries"


def test_images_hold_every_program_of_the_engine() -> None:
    """What a wheel installs of the engine, an image does too."""
    own = {name: at for name, at in PROJECT["scripts"].items() if at.startswith("riva_speech")}
    assert own.items() <= ENGINE["scripts"].items()
    assert "deploy_all_models" in ENGINE["scripts"]


def test_the_context_is_complete_and_repeats() -> None:
    """It holds what the Dockerfiles copy, the same bytes each time, and no compiled leftovers."""
    first, second = images.context(), images.context()
    assert first == second
    with tarfile.open(fileobj=io.BytesIO(first)) as archive:
        names = set(archive.getnames())
    wanted = {"Dockerfile", "Dockerfile.l4t", "pyproject.toml", "requirements.txt"}
    assert wanted | {"riva_speech/server/start_riva.py"} <= names
    assert not [name for name in names if "__pycache__" in name]


def test_both_dockerfiles_install_the_same() -> None:
    """They differ in comments and in the user's groups only."""
    folder = ROOT / "images" / "speech"
    texts = [(folder / name).read_text() for name in ("Dockerfile", "Dockerfile.l4t")]
    steps = [re.sub(r"^#.*\n|\s+|\\|--groupsvideo", "", t, flags=re.MULTILINE) for t in texts]
    assert steps[0] == steps[1].replace("--groupsvideo", "")


def test_a_variant_is_chosen_by_name_or_platform() -> None:
    """The first variant of a platform is its default; what does not exist is refused."""
    assert images.choose("", "linux/amd64").name == "cpu"
    assert images.choose("", "linux/arm64").name == "jetpack6"
    assert images.choose("jetpack7", "").platform == "linux/arm64"
    for variant, platform in (("none", ""), ("cuda", "linux/arm64"), ("", "windows/amd64")):
        with pytest.raises(UsageError, match="there is no image for"):
            images.choose(variant, platform)


def test_given_bases_replace_those_of_the_table() -> None:
    """--base and --builder win; what else the table says stays."""
    row = images.choose("cuda", "")
    own = images.options(row, images.Bases(), "")
    assert own["buildargs"]["RUNTIME"] == row.runtime
    given = images.options(row, images.Bases("b", "r"), "mine:1")
    assert (given["buildargs"]["BUILDER"], given["buildargs"]["RUNTIME"]) == ("b", "r")
    assert given["tag"] == "mine:1"
    assert given["labels"]["org.opencontainers.image.base.name"] == "r"
    assert given["buildargs"]["ONNXRUNTIME"].startswith("onnxruntime-gpu")
