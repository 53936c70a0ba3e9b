"""Whether a deployed model computes what its source computes.

The pipeline recognises a sound with the graphs of the RMIR, run operator by operator as they are
written. What each graph was given, and what it gave, is then held against the deployed model. So
nothing here has to know what a graph is for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from riva_speech.asr.loading import load_recognizer
from riva_speech.errors import SpeechError
from riva_speech.sessions.onnx import OnnxSession

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from riva_speech.sessions import Session

    Tensors: TypeAlias = dict[str, NDArray[Any]]

# A decoder that emits many tokens calls its graph often; the first calls show what there is to see.
_MOST_CALLS = 16
_SECONDS = 3.0
_CHUNKS = 3
_BUILD_AGAIN = "convert and build the checkpoint again"


class _Recorder:
    """A session that keeps what passes through it."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self.calls: list[tuple[Tensors, Tensors]] = []

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> Tensors:
        """Run the session; copies of the first calls' inputs and outputs stay in `calls`."""
        outputs = self._session.run(inputs)
        if len(self.calls) < _MOST_CALLS:
            # A caller may write into its arrays afterwards.
            self.calls.append(
                tuple({n: np.copy(v) for n, v in side.items()} for side in (inputs, outputs))  # type: ignore[arg-type]  # a pair
            )
        return outputs


class Recording:
    """What the graphs of one pipeline were given and gave, by the folder of each."""

    def __init__(self, pipeline: Path, graphs: Mapping[str, Path]) -> None:
        """Run a deployed pipeline's folder with its source's graphs.

        Args:
            pipeline: The folder of the pipeline.
            graphs: The source's graph for each folder of an acoustic model.

        Raises:
            SpeechError: The pipeline does not run, or leaves out one of its graphs.
        """
        recorders: dict[str, _Recorder] = {}

        def open_source(folder: Path) -> Session:
            """Open the graph that the deployed one was made of."""
            session = OnnxSession(graphs[folder.name], as_written=True)
            recorders[folder.name] = _Recorder(session)
            return recorders[folder.name]

        recognizer = load_recognizer(pipeline, open_session=open_source)
        config = recognizer.config
        # What is encoded at once offline may be minutes; a stream takes its chunks one by one.
        seconds = (
            max(_SECONDS, _CHUNKS * config.chunk_size) if config.type == "online" else _SECONDS
        )
        try:
            result = recognizer.recognize(sound(seconds, config.acoustic.features.sample_rate))
        except Exception as error:
            raise SpeechError(
                f"the pipeline {config.name} does not run: {error}", hint=_BUILD_AGAIN
            ) from error
        self.decoder = recognizer.decoding.name
        self._calls = {name: recorder.calls for name, recorder in recorders.items()}
        if not np.isfinite(result.confidence) or self._has_given_no_numbers():
            raise SpeechError(f"the pipeline {config.name} gives values that are no numbers")

    def _has_given_no_numbers(self) -> bool:
        given = (value for calls in self._calls.values() for _, outputs in calls
                 for value in outputs.values())  # fmt: skip
        return any(value.dtype.kind == "f" and np.isnan(value).any() for value in given)

    def largest_difference(self, folder: str, session: Session) -> float:
        """Give a deployed model what its source was given; return how far apart the outputs are.

        The unit is that of ``difference``.
        """
        calls = self._calls.get(folder)
        if not calls:
            raise SpeechError(f"{folder} is never run by its pipeline", hint=_BUILD_AGAIN)
        return max(_compare(session.run(inputs), outputs) for inputs, outputs in calls)


def decoder_of(pipeline: Path) -> str:
    """Return the decoder that a deployed pipeline uses here, without loading its graphs."""
    return load_recognizer(pipeline, open_session=lambda _: _Unopened()).decoding.name


class _Unopened:
    """A session that nothing will run."""

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> Tensors:
        """Raise NotImplementedError: only its kind is asked for."""
        raise NotImplementedError


def check(recording: Recording, folder: str, session: Session, tolerance: float) -> float:
    """Hold a deployed model against its source; return the largest difference.

    Raises:
        SpeechError: They differ by more than the tolerance, or the deployed model does not run.
    """
    try:
        found = recording.largest_difference(folder, session)
    except SpeechError:
        raise
    except Exception as error:
        raise SpeechError(f"the deployed model {folder} does not run: {error}") from error
    if not found <= tolerance:
        raise SpeechError(
            f"the deployed model {folder} differs from its source by {found:.2g}, "
            f"and {tolerance:g} is allowed",
            hint="deploy with -f if it is an older model of this name; else report this",
        )
    return found


def _compare(found: Tensors, expected: Tensors) -> float:
    return max(difference(found[name], value) for name, value in expected.items())


def difference(found: NDArray[Any], expected: NDArray[Any]) -> float:
    """Return the largest difference of two tensors, relative where values are larger than 1.

    It is infinite where shapes, whole numbers or the places of numbers that are none differ.
    """
    if found.shape != expected.shape:
        return float("inf")
    if not np.issubdtype(expected.dtype, np.floating):
        return 0.0 if np.array_equal(found, expected) else float("inf")
    finite = np.isfinite(expected)
    same = np.array_equal(found[~finite], expected[~finite], equal_nan=True)
    if not same or not np.isfinite(found[finite]).all():
        return float("inf")
    near = np.abs(found[finite].astype(np.float64) - expected[finite])
    return float((near / np.maximum(1, np.abs(expected[finite]))).max(initial=0.0))


def sound(seconds: float, rate: int) -> NDArray[np.float32]:
    """Return noise that swells three times a second, as syllables do."""
    time = np.arange(int(seconds * rate)) / rate
    noise = np.random.default_rng(0).normal(0, 0.1, len(time))
    return (noise * np.sin(np.pi * 3 * time) ** 2).astype(np.float32)
