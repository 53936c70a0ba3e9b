"""What the official riva-deploy says, line by line: other tools look for it."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from riva_speech.repository import VERSION
from riva_speech.sessions.opening import PLAN_FILE

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

_log = logging.getLogger("riva_speech.riva_deploy")

_SKIPPED = (
    "%s already exists, skipping deployment.  To force deployment rerun with -f or remove the %s"
)


class OfficialLog:
    """Speaks of folders as they will lie in a repository, while they are written elsewhere."""

    def __init__(self, repository: Path) -> None:
        self._repository = repository

    def begin(self) -> None:
        """Say where the models go."""
        _log.info("Writing Riva model repository to '%s'...", self._repository)
        _log.info("The riva model repo target directory is %s", self._repository)

    def skip(self, directory: str) -> None:
        """Say that a model stays as it is."""
        path = self._repository / directory
        _log.warning(_SKIPPED, path, path)

    def extract(self, component: str, directory: str) -> None:
        """Say which component becomes which model."""
        _log.info("Extract_binaries for %s -> %s", component, self._version(directory))

    def graph(self, directory: str, obj_cls: str, artifact: str) -> None:
        """Say which graph of which model's class is taken."""
        role = {"onnx": (obj_cls, artifact)}
        _log.info("extracting %s -> %s", role, self._version(directory))

    def copied(self, staged: Path) -> None:
        """Say what the version folder of a staged model holds."""
        version = self._version(staged.name)
        files = {
            path.name: str(version / path.name) for path in sorted((staged / VERSION).iterdir())
        }
        _log.info("Printing copied artifacts:")
        _log.info("%s", files)

    def engine(self, directory: str) -> None:
        """Say where an engine is written."""
        path = self._version(directory) / PLAN_FILE
        _log.info("Writing engine to model repository: %s", path)

    @staticmethod
    def steps(directories: Sequence[str]) -> None:
        """Say which models a pipeline runs."""
        _log.info("%s", list(directories))

    def _version(self, directory: str) -> Path:
        return self._repository / directory / VERSION
