"""A connection to one engine: where it is, what it says of itself, and how its errors are told."""

from __future__ import annotations

import os
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any

from quickstart.backends.engine.values import parse_facts
from quickstart.backends.engine.words import PATIENCE, from_words, unreachable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from quickstart.backends.engine.values import Facts

_MISSING = 404


class Connection:
    """What all the parts of an engine's API share."""

    def __init__(self, client: Any, address: str, architecture: str) -> None:  # noqa: ANN401 - the SDK's
        self.api = client
        self.address = address
        self.architecture = architecture

    def facts(self) -> Facts:
        """Return what the engine says of itself."""
        with self.doing("ask what it can do"):
            return parse_facts(self.api.info())

    def close(self) -> None:
        """Close the connection."""
        self.api.close()

    def data_root(self) -> str:
        """Return the folder where the engine keeps its data, on its own machine."""
        with self.doing("ask where it keeps its data"):
            return str(self.api.info().get("DockerRootDir") or "")

    @contextmanager
    def another(self, patience: int) -> Iterator[Any]:
        """Give a connection of its own to the same engine, whose answers may take so long.

        What waits there disturbs nothing that is asked here meanwhile, by another thread.
        """
        with closing(open_api(self.api.api_version, patience)) as client:
            yield client

    @contextmanager
    def within(self, seconds: int | None) -> Iterator[None]:
        """Let answers take so many seconds, or as long as they like."""
        self.api.timeout = seconds
        try:
            yield
        finally:
            self.api.timeout = PATIENCE

    @contextmanager
    def doing(self, what: str, *, missing: bool = False) -> Iterator[None]:
        """Translate what the SDK raises; with `missing`, a thing that is not there is no error."""
        from docker.errors import APIError, DockerException
        from urllib3.exceptions import HTTPError

        try:
            yield
        except APIError as error:
            if not (missing and error.response is not None and error.status_code == _MISSING):
                words = str(error.explanation or error)
                raise from_words(f"the Docker Engine could not {what}", words, what) from error
        # A stream that breaks raises what is below the SDK: it reads those past its own errors.
        except (DockerException, OSError, HTTPError) as error:
            raise unreachable(self.address, error) from error


def address() -> str:
    """Return where the engine is: what DOCKER_HOST names, or the local one."""
    return os.environ.get("DOCKER_HOST") or "unix:///var/run/docker.sock"


def open_api(version: str | None = None, patience: int = PATIENCE) -> Any:  # noqa: ANN401 - the SDK's
    """Return the SDK's client of the engine that this user's environment names.

    Without a version of the API it can only be asked which one the engine speaks.
    """
    from docker.constants import MINIMUM_DOCKER_API_VERSION
    from docker.utils import kwargs_from_env

    from docker import APIClient

    # Given none, the SDK asks by itself; an engine looks its parts up anew for each such answer.
    known = version or MINIMUM_DOCKER_API_VERSION
    return APIClient(version=known, timeout=patience, **kwargs_from_env())
