"""The named volumes of an engine."""

from __future__ import annotations

from typing import TYPE_CHECKING

from quickstart.backends.engine.connection import Connection
from quickstart.errors import OutOfResourceError

if TYPE_CHECKING:
    from collections.abc import Sequence


def refuse_users(volume: str, users: Sequence[str]) -> None:
    """Raise OutOfResourceError where containers have a volume, naming them."""
    if users:
        raise OutOfResourceError(
            f"the volume {volume} is in use by the container {', '.join(users)}",
            f"docker rm -f {users[0]}, then try again",
        )


class Volumes(Connection):
    """The volumes of an engine; they go by their names."""

    def volume_exists(self, name: str) -> bool:
        """Say whether there is a volume."""
        with self.doing(f"look at the volume {name}", missing=True):
            self.api.inspect_volume(name)
            return True
        return False

    def create_volume(self, name: str, **labels: str) -> None:
        """Make a volume, unless it is there."""
        with self.doing(f"make the volume {name}"):
            self.api.create_volume(name, labels=labels)

    def volume_users(self, name: str) -> list[str]:
        """Return the names of the containers, running or not, that have a volume."""
        with self.doing(f"see who has the volume {name}"):
            rows = self.api.containers(all=True, filters={"volume": name})
        return [row["Names"][0].lstrip("/") for row in rows]

    def remove_volume(self, name: str) -> None:
        """Remove a volume; one that is gone already is fine.

        Raises:
            OutOfResourceError: A container has it.
        """
        refuse_users(name, self.volume_users(name))
        with self.doing(f"remove the volume {name}", missing=True):
            self.api.remove_volume(name)
