"""The containers of an engine: making, running, watching and ending them."""

from __future__ import annotations

import io
import signal
import tarfile
from typing import TYPE_CHECKING, Any

from quickstart.backends.engine.images import Images
from quickstart.backends.engine.request import container_config, numeric_user, secrets_archive
from quickstart.backends.engine.values import parse_container
from quickstart.backends.engine.words import PATIENCE, is_late

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from quickstart.backends.container import ContainerSpec
    from quickstart.backends.engine.values import Container

# How long a container's end is waited for, in seconds, before the engine is asked whether it is
# still there.
GLANCE = 10


class Containers(Images):
    """The containers of an engine; they go by their names, and are made of its images."""

    def create(self, spec: ContainerSpec, secrets: Mapping[str, str], **labels: str) -> str:
        """Make a container, put its secrets into it, and return its id; it does not run yet."""
        with self.doing(f"make the container {spec.name or spec.image}"):
            made = self.api.create_container_from_config(
                container_config(self.api, spec, labels), spec.name or None
            )
            wanted = {name: secrets[name].encode() for name in spec.secrets}
            if wanted:
                archive = secrets_archive(wanted, numeric_user(spec.user or self._user(spec.image)))
                self.api.put_archive(made["Id"], "/run", archive)
        identity: str = made["Id"]
        return identity

    def start(self, container: str, patience: int = PATIENCE) -> None:
        """Run the program of a container.

        Args:
            container: Its name or id.
            patience: How many seconds the engine may take.

        Raises:
            NotReadyError: The engine takes longer.
            RivaQsError: The engine cannot; the container stays in the state Created.
        """
        with self.doing(f"start the container {container}"), self.another(patience) as api:
            api.start(container)

    def container(self, name: str) -> Container | None:
        """Return what is known of a container."""
        with self.doing(f"look at the container {name}", missing=True):
            return parse_container(self.api.inspect_container(name))
        return None

    def wait(self, container: str, patience: int = PATIENCE) -> int:
        """Wait for a container's end, however far it is, and return its exit code.

        Raises:
            NotReadyError: The engine answers nothing for `patience` seconds, not even whether the
                container is there.
        """
        with self.doing(f"wait for the container {container}"), self.another(patience) as api:
            while (code := _exit_code(api, container, GLANCE)) is None:
                # An engine that hangs, and one whose container runs on, are both silent so far.
                api.inspect_container(container)
        return code

    def stop(self, container: str, patience: int) -> None:
        """Ask a container's program to end, and kill it after some seconds."""
        with self.doing(f"stop the container {container}", missing=True):
            self.api.stop(container, timeout=patience)

    def remove(self, container: str) -> None:
        """Remove a container, running or not; one that is gone already is fine."""
        with self.doing(f"remove the container {container}", missing=True):
            self.api.remove_container(container, force=True, v=True)

    def rename(self, container: str, name: str) -> None:
        """Give a container another name."""
        with self.doing(f"rename the container {container}"):
            self.api.rename(container, name)

    def logs(
        self,
        container: str,
        *,
        follow: bool = False,
        tail: int | None = None,
        since: float | None = None,
    ) -> Iterator[str]:
        """Yield the lines of a container's log; following ends when the container does."""
        last = "all" if tail is None else tail
        # The SDK takes no time before 1970, which is that of a container that never ran.
        after = since if since and since > 0 else None
        with self.doing(f"read the log of the container {container}"):
            yield from _lines(
                self.api.logs(container, stream=True, follow=follow, tail=last, since=after)
            )

    def was_told_to_kill(self, container: str, since: float, until: float) -> bool:
        """Return whether somebody asked the engine to kill a container between two POSIX times.

        The engine's clock counts, and it remembers its last 256 events. An end that is yet to come
        is waited for.
        """
        wanted = {"container": container, "event": "kill"}
        with self.doing(f"ask what happened to the container {container}"):
            events = self.api.events(f"{since:.6f}", f"{until:.6f}", wanted, decode=True)
            signals = [event["Actor"]["Attributes"].get("signal") for event in events]
        return str(int(signal.SIGKILL)) in signals

    def publisher(self, port: int) -> str:
        """Return the name of the running container that publishes a port; empty for none."""
        with self.doing("list its containers"):
            rows = self.api.containers(filters={"publish": str(port)})
        return rows[0]["Names"][0].lstrip("/") if rows else ""

    def read_file(self, container: str, path: str) -> bytes:
        """Return a file of a container, running or not.

        Raises:
            ArtifactMissingError: There is no such file.
        """
        with self.doing(f"read {path} of the container {container}"):
            chunks, _ = self.api.get_archive(container, path)
            with tarfile.open(fileobj=io.BytesIO(b"".join(chunks))) as archive:
                file = archive.extractfile(archive.getmembers()[0])
                return file.read() if file else b""

    def memory(self, container: str) -> int:
        """Return how many bytes a container's programs hold, 0 where the engine does not know."""
        with self.doing(f"measure the container {container}", missing=True):
            usage = self.api.stats(container, stream=False, one_shot=True)["memory_stats"]
            cached = usage.get("stats", {})
            idle = cached.get("total_inactive_file", cached.get("inactive_file", 0))
            return int(usage.get("usage", 0)) - int(idle)
        return 0

    def output(self, spec: ContainerSpec) -> list[str]:
        """Run a container to its end, and return what it says."""
        container = self.create(spec, {})
        try:
            self.start(container)
            self.wait(container)
            return list(self.logs(container))
        finally:
            self.remove(container)

    def attach(self, spec: ContainerSpec) -> Any:  # noqa: ANN401 - a socket with frames
        """Run a container with its stdin open; return the socket that carries stdin and output.

        The container goes away when its program ends; output comes in Docker's 8-byte frames.
        """
        with self.doing(f"run {spec.image}"):
            config = container_config(self.api, spec, {})
            config["HostConfig"]["AutoRemove"] = True
            streams = {"AttachStdin": True, "OpenStdin": True, "StdinOnce": True}
            made = self.api.create_container_from_config({**config, **streams}, spec.name or None)
            wanted = {"stdin": 1, "stdout": 1, "stderr": 1, "stream": 1}
            channel = self.api.attach_socket(made["Id"], params=wanted)
            self.api.start(made["Id"])
        return getattr(channel, "_sock", channel)

    def _user(self, image: str) -> str:
        """Return the user that an image's programs run as."""
        known = self.image(image)
        return known.user if known else ""


def _lines(chunks: Iterator[bytes]) -> Iterator[str]:
    """Yield the lines of a stream of bytes that is cut anywhere."""
    rest = b""
    for chunk in chunks:
        *lines, rest = (rest + chunk).split(b"\n")
        yield from (line.decode(errors="replace").rstrip("\r") for line in lines)
    if rest:
        yield rest.decode(errors="replace")


def _exit_code(api: Any, container: str, seconds: int) -> int | None:  # noqa: ANN401 - the SDK's
    """Return a container's exit code, or None where it has not ended after some seconds."""
    try:
        code: int = api.wait(container, timeout=seconds)["StatusCode"]
    except OSError as error:
        if is_late(error):
            return None
        raise
    return code
