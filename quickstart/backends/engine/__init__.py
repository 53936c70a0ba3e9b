"""The one place that talks to a Docker Engine, through its SDK.

words.py       what its refusals mean: members of our error tree, its own words in them
values.py      what it tells, as values
request.py     a container's spec as its API takes it
connection.py  a connection; images.py, containers.py, volumes.py are the parts of its API
"""

from __future__ import annotations

from contextlib import closing

from quickstart.backends.engine.connection import address, open_api
from quickstart.backends.engine.containers import Containers
from quickstart.backends.engine.values import Container, Facts, Image, split_name
from quickstart.backends.engine.volumes import Volumes, refuse_users
from quickstart.backends.engine.words import PATIENCE, unreachable
from quickstart.errors import UnsupportedError

__all__ = [
    "PATIENCE",
    "Container",
    "Engine",
    "Facts",
    "Image",
    "connect",
    "refuse_users",
    "split_name",
]


class Engine(Containers, Volumes):
    """A connection to one engine; images, containers and volumes go by their names."""


def connect() -> Engine:
    """Return a connection to the engine that DOCKER_HOST names, or to the local one.

    Raises:
        UnsupportedError: There is no engine, or something else answers in its place.
        NotAuthorisedError: This user may not talk to it.
        NotReadyError: It does not answer.
    """
    from docker.errors import DockerException

    where = address()
    try:
        with closing(open_api()) as anybody:
            about = anybody.version(api_version=False)
        return Engine(open_api(str(about["ApiVersion"])), where, str(about.get("Arch", "")))
    except (DockerException, OSError) as error:
        raise unreachable(where, error) from error
    except (TypeError, KeyError, ValueError) as error:
        message = f"what answers at {where} is no Docker Engine"
        raise UnsupportedError(message, "check DOCKER_HOST") from error
