"""The stand-in for NVIDIA's packages, held against them: what it offers, they offer."""

from __future__ import annotations

import importlib
import inspect
import re
from enum import Enum
from typing import TYPE_CHECKING, Any

import pytest

from riva_speech.sessions.engine import capability_here
from support.gpu_at_hand import CAPABILITY, gpu_at_hand

if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import ModuleType

pytestmark = pytest.mark.rtx

# Of the stand-in's own: what its parts tell each other.
OWN = {"holds", "enqueue", "compute"}


@pytest.fixture(scope="module")
def stand_ins() -> dict[str, ModuleType]:
    with gpu_at_hand():
        assert capability_here() == CAPABILITY
        names = ("tensorrt_rtx", "cuda.bindings.runtime")
        return {name: importlib.import_module(name) for name in names}


def public(module: ModuleType) -> Iterable[tuple[str, Any]]:
    """Return what a stand-in defines."""
    names = getattr(module, "__all__", vars(module))
    for name in (one for one in names if callable(getattr(module, one))):
        value = getattr(module, name)
        foreign = value.__module__.split(".")[0] not in {"tensorrt", module.__name__.split(".")[0]}
        if not name.startswith("_") and not foreign and name not in OWN:
            yield name, value


def parameters(function: Any) -> list[str]:
    return [name for name in inspect.signature(function).parameters if name != "self"]


def offered(function: Any) -> list[list[str]]:
    """Return the parameters of a function of the library's, as its documentation lists them."""
    lines = re.findall(r"^(?:\d+\. )?\w+\((.*)\) ->", function.__doc__, re.MULTILINE)
    return [
        [name for name in re.findall(r"(?:^|, )(\w+)(?=:)", line) if name != "self"]
        for line in lines
    ]


def test_the_library_has_what_its_stand_in_offers(stand_ins: dict[str, ModuleType]) -> None:
    """Every class, method, property and member of an enumeration, with the same parameters."""
    library = importlib.import_module("tensorrt_rtx")
    assert library is not stand_ins["tensorrt_rtx"]
    compared = 0

    for name, ours in public(stand_ins["tensorrt_rtx"]):
        theirs = getattr(library, name)
        if not inspect.isclass(ours):
            assert parameters(ours) == parameters(theirs), name
        elif issubclass(ours, Enum):
            assert ours.__members__.keys() <= theirs.__members__.keys(), name
        else:
            compared += compare_class(name, ours, theirs)

    assert compared > 25


def compare_class(name: str, ours: type, theirs: type) -> int:
    """Compare the methods and properties of a class; return how many there were."""
    found = 0
    for attribute, value in inspect.getmembers(ours):
        if attribute.startswith("_") or attribute in OWN or inspect.isclass(value):
            continue
        found += 1
        label = f"{name}.{attribute}"
        assert hasattr(theirs, attribute), label
        if isinstance(value, property):
            assert isinstance(getattr(theirs, attribute), property), label
            continue
        wanted = parameters(value)
        known = offered(getattr(theirs, attribute))
        assert any(names[: len(wanted)] == wanted for names in known), (label, wanted, known)
    return found


def test_cuda_has_what_its_stand_in_offers(stand_ins: dict[str, ModuleType]) -> None:
    """Every function with the same parameters, and every error and direction with its number."""
    binding = importlib.import_module("cuda.bindings.runtime")
    assert binding is not stand_ins["cuda.bindings.runtime"]

    for name, ours in public(stand_ins["cuda.bindings.runtime"]):
        theirs = getattr(binding, name)
        if inspect.isclass(ours) and issubclass(ours, Enum):
            # Not every version's enumerations are Python's.
            for member in ours.__members__.values():
                assert getattr(theirs, member.name) == member.value, member
        else:
            assert parameters(ours) == parameters(theirs), name


def test_errors_of_cuda_are_worded_alike(stand_ins: dict[str, ModuleType]) -> None:
    """An error comes first in what a function gives, and its words are bytes."""
    ours = stand_ins["cuda.bindings.runtime"]
    theirs = importlib.import_module("cuda.bindings.runtime")

    for error in ours.cudaError_t:
        real = getattr(theirs.cudaError_t, error.name)
        assert ours.cudaGetErrorString(error) == (0, theirs.cudaGetErrorString(real)[1])
    assert isinstance(theirs.cudaMalloc(0), tuple)


def test_the_library_has_what_the_engine_builder_takes_for_granted() -> None:
    """A logger of ours is heard, and what is no engine is refused by giving none."""
    library = importlib.import_module("tensorrt_rtx")
    from riva_speech.sessions.library_log import hearing, started  # noqa: PLC0415 - beside its library

    with hearing() as heard:
        assert started(library, "Runtime").deserialize_cuda_engine(b"no engine") is None

    assert heard.errors
    assert library.nptype(library.DataType.FLOAT).__name__ == "float32"
