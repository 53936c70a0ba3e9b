"""Sessions on engines: batches in parts, runs at once, what fails; with a stand-in for a GPU."""

from __future__ import annotations

import gc
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from riva_speech import repository
from riva_speech.errors import OutOfResourceError, SpeechError, UnsupportedError
from riva_speech.sessions.cuda import load_runtime
from riva_speech.sessions.opening import open_session
from riva_speech.sessions.parts import in_parts, joined
from riva_speech.sessions.tensorrt import EngineSession
from support.gpu_at_hand import gpu_at_hand
from support.programs import succeed

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    Tensors: TypeAlias = dict[str, NDArray[Any]]

FAULT, MEMORY = "STAND_IN_FAULT", "STAND_IN_MEMORY"
MOST = 2


@pytest.fixture(scope="module", autouse=True)
def _gpu() -> Iterator[None]:
    with gpu_at_hand():
        yield


@pytest.fixture(scope="module")
def rmir(tiny_riva: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Whole utterances, of which an engine takes two at once."""
    path = tmp_path_factory.mktemp("two") / "two.rmir"
    said = ("--name=two", "--offline", f"--nn.max_batch_size={MOST}")
    succeed("riva-build", "speech_recognition", path, tiny_riva, *said)
    return path


@pytest.fixture(scope="module")
def graph(rmir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The deployed model that ONNX Runtime runs."""
    models = tmp_path_factory.mktemp("graph") / "models"
    succeed("riva-deploy", rmir, models)
    return next(models.glob("riva-onnx-*"))


@pytest.fixture(scope="module")
def engine(rmir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same one as an engine."""
    models = tmp_path_factory.mktemp("engine") / "models"
    succeed("riva-deploy", "--runtime=tensorrt", rmir, models)
    return next(models.glob("riva-trt-*"))


def inputs_of(folder: Path, batch: int, frames: int = 100, seed: int = 0) -> Tensors:
    """Return noise for a model of whole utterances."""
    signal, length = sorted(repository.read_config(folder).inputs, key=lambda one: one.name)
    shape = (batch, *(frames if one == -1 else one for one in signal.dims))
    noise = np.random.default_rng(seed).normal(size=shape).astype(np.float32)
    return {signal.name: noise, length.name: np.full(batch, frames, np.int64)}


def assert_same(found: Tensors, expected: Tensors) -> None:
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, atol=1e-4)


def memory_taken() -> int:
    """Return how many bytes of the GPU are in use."""
    gc.collect()
    _, free, total = load_runtime().cudaMemGetInfo()
    return total - free


def opened(folder: Path) -> EngineSession:
    session = open_session(folder)
    assert isinstance(session, EngineSession)
    return session


@pytest.mark.parametrize("batch", [1, MOST, MOST + 1, 2 * MOST + 1])
def test_a_batch_of_any_size_is_run(engine: Path, graph: Path, batch: int) -> None:
    """One that is larger than the engine takes is run in parts."""
    inputs = inputs_of(engine, batch)

    assert_same(opened(engine).run(inputs), dict(open_session(graph).run(inputs)))


def test_tensors_may_grow_and_shrink(engine: Path, graph: Path) -> None:
    """Memory that earlier runs took serves later ones; what it held is no matter."""
    session, expected = opened(engine), open_session(graph)

    for frames in (50, 200, 120, 201, 50):
        inputs = inputs_of(engine, 1, frames, seed=frames)
        assert_same(session.run(inputs), dict(expected.run(inputs)))


def test_runs_at_once_have_nothing_in_common(engine: Path, graph: Path) -> None:
    """Each has a context of its own, whether it begins within another one or on another thread."""
    session, expected = opened(engine), open_session(graph)
    given = [inputs_of(engine, 2, seed=seed) for seed in range(8)]

    with session._context() as first:
        inner = session.run(given[0])
        outer = first.run(given[1])
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(session.run, given))

    for outputs, inputs in zip([inner, outer, *found], [*given[:2], *given], strict=True):
        assert_same(outputs, dict(expected.run(inputs)))


def test_what_an_engine_gave_stays_as_it_is(engine: Path) -> None:
    """A later run writes elsewhere."""
    session = opened(engine)
    first = session.run(inputs_of(engine, 1, seed=1))
    kept = {name: values.copy() for name, values in first.items()}

    session.run(inputs_of(engine, 1, seed=2))

    assert_same(first, kept)


def test_a_shape_that_the_engine_was_not_built_for_is_one_error(engine: Path, graph: Path) -> None:
    """It names the tensor and its shape, and the next run works."""
    session, inputs = opened(engine), inputs_of(engine, 1)
    before = memory_taken()

    with pytest.raises(SpeechError, match=r"not built for audio_signal of \[1, \d+, 100000\]"):
        session.run(inputs_of(engine, 1, frames=100_000))

    assert memory_taken() == before
    assert_same(session.run(inputs), dict(open_session(graph).run(inputs)))


# For nothing; for the signal, 2 x 80 x 100 floats; for the lengths too, but not for what is given.
@pytest.mark.parametrize("room", [0, 64_000, 64_300])
def test_a_gpu_without_memory_is_no_dead_end(
    engine: Path, graph: Path, monkeypatch: pytest.MonkeyPatch, room: int
) -> None:
    """The run fails with an error of its own, gives back what it took, and the next one works."""
    session, inputs = opened(engine), inputs_of(engine, 2)
    before = memory_taken()

    with monkeypatch.context() as patch:
        patch.setenv(MEMORY, str(before + room))
        with pytest.raises(OutOfResourceError, match="the GPU has not enough memory") as caught:
            session.run(inputs)
    # The error is still held, and all that its traceback refers to.
    assert memory_taken() == before
    assert caught.value.hint

    assert_same(session.run(inputs), dict(open_session(graph).run(inputs)))


@pytest.mark.parametrize(
    ("fault", "kind", "said"),
    [
        ("context", OutOfResourceError, "Requested size was"),
        ("execute", SpeechError, "the engine does not run: IExecutionContext::enqueueV3"),
        ("synchronise", SpeechError, "an illegal memory access was encountered"),
    ],
)
def test_a_run_that_fails_takes_nothing_along(
    engine: Path,
    graph: Path,
    monkeypatch: pytest.MonkeyPatch,
    fault: str,
    kind: type[SpeechError],
    said: str,
) -> None:
    """The error has the reason, the memory is free again, and the next run works."""
    session, inputs = opened(engine), inputs_of(engine, 1)
    before = memory_taken()

    with monkeypatch.context() as patch:
        patch.setenv(FAULT, fault)
        with pytest.raises(kind, match=said):
            session.run(inputs)
    assert memory_taken() == before

    assert_same(session.run(inputs), dict(open_session(graph).run(inputs)))


def test_a_session_that_nobody_holds_gives_its_memory_back(engine: Path) -> None:
    """A deploy opens many, one after the other."""
    before = memory_taken()
    session = opened(engine)
    session.run(inputs_of(engine, 2))
    assert memory_taken() > before

    del session

    assert memory_taken() == before


@pytest.mark.parametrize("library", ["tensorrt", "tensorrt_rtx"])
def test_a_file_that_the_library_refuses_is_not_called_damaged(
    tmp_path: Path, engine: Path, monkeypatch: pytest.MonkeyPatch, library: str
) -> None:
    """The reason is the library's: the GPU, or what the file is."""
    plan = engine / "1" / "model.plan"
    (tmp_path / "other.plan").write_bytes(b"no engine")

    with pytest.raises(UnsupportedError, match=r"does not load .*other\.plan: .* \(magic tag\)"):
        EngineSession(tmp_path / "other.plan", library, MOST)
    monkeypatch.setenv(FAULT, "refuse")
    with pytest.raises(UnsupportedError, match=r"has compute capability 9\.0") as caught:
        EngineSession(plan, library, MOST)

    assert "--runtime=onnxruntime-cuda" in str(caught.value.hint)


def test_runs_that_fail_at_once_have_their_own_reasons(engine: Path, tmp_path: Path) -> None:
    """What a library says on one thread is not told on another."""
    (tmp_path / "other.plan").write_bytes(b"no engine")
    failing = partial(EngineSession, tmp_path / "other.plan", "tensorrt", MOST)

    with ThreadPoolExecutor(4) as pool:
        calls = [pool.submit(failing) for _ in range(20)]
        errors = [str(call.exception()) for call in calls]
        fine = pool.submit(EngineSession, engine / "1" / "model.plan", "tensorrt", MOST).result()

    assert {error.count("magic tag") for error in errors} == {1}
    fine.run(inputs_of(engine, 1))


@given(
    total=st.integers(1, 20),
    most=st.integers(0, 25),
    width=st.integers(0, 3),
)
def test_parts_make_up_the_whole(total: int, most: int, width: int) -> None:
    """None is larger than it may be, and joined again they are what was cut."""
    whole: Tensors = {
        "a": np.arange(total * width, dtype=np.float32).reshape(total, width),
        "b": np.arange(total),
    }

    parts = in_parts(whole, most)

    assert all(len(part["b"]) <= (most or total) for part in parts)
    assert all(len(part["a"]) == len(part["b"]) > 0 for part in parts)
    again = joined(parts)
    assert all(np.array_equal(again[name], values) for name, values in whole.items())
    assert all(again[name].dtype == values.dtype for name, values in whole.items())
