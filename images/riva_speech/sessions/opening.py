"""From a deployed model's folder to a session that runs it."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from riva_speech import repository
from riva_speech.errors import ArtifactMissingError
from riva_speech.sessions.engine import STAMP_LIBRARY, check_stamp
from riva_speech.sessions.onnx import OnnxSession
from riva_speech.sessions.tensorrt import EngineSession

if TYPE_CHECKING:
    from pathlib import Path

    from riva_speech.sessions import Session, SessionOpener

# The file of a deployed model that ONNX Runtime runs.
GRAPH_FILE = "model.onnx"
# The file of a deployed model that is a TensorRT engine.
PLAN_FILE = "model.plan"


class Shrinking:
    """Opens models, and remembers those whose memory may shrink."""

    def __init__(self, open_session: SessionOpener) -> None:
        """Open by ``open_session``."""
        self._open = open_session
        self._opened: list[OnnxSession] = []

    def __call__(self, folder: Path) -> Session:
        """Open the model of a folder; the errors are those of ``open_session``."""
        session = self._open(folder)
        if isinstance(session, OnnxSession):
            self._opened.append(session)
        return session

    def shrink(self) -> None:
        """Free what runs of the models took and none uses now."""
        for session in self._opened:
            session.shrink()


def opener(threads: int = 0, triton_uri: str = "") -> SessionOpener:
    """Return what opens models.

    Args:
        threads: Threads for one run; 0 takes one a core.
        triton_uri: HOST:PORT of the Triton that runs them; empty for this process.

    Raises:
        NotReadyError: There is no such Triton.
    """
    if not triton_uri:
        return partial(open_session, threads=threads)
    from riva_speech.sessions.remote import remote_opener  # noqa: PLC0415 - few servers need it

    return remote_opener(triton_uri)


def open_session(folder: Path, *, threads: int = 0) -> Session:
    """Open the model of a folder as its configuration says.

    Raises:
        ArtifactMissingError: The folder lacks one of its files.
        DamagedArchiveError: A file cannot be read.
        UnsupportedError: What the model was deployed for is not here.
    """
    config = repository.read_config(folder)
    if STAMP_LIBRARY in config.parameters:
        check_stamp(config.parameters, config.name)
        plan = existing(folder / repository.VERSION / PLAN_FILE)
        return EngineSession(plan, config.parameters[STAMP_LIBRARY], config.max_batch_size)
    graph = existing(folder / repository.VERSION / GRAPH_FILE)
    return OnnxSession(graph, threads=threads, on_gpu=config.on_gpu, records=config.has_one_shape)


def existing(path: Path) -> Path:
    """Return the path of a file that must be there.

    Raises:
        ArtifactMissingError: It is not.
    """
    if not path.is_file():
        raise ArtifactMissingError(
            f"{path} is missing from the model repository",
            hint="deploy the model again with riva-deploy -f",
        )
    return path
