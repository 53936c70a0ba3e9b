"""The one place that talks to a Docker Engine, through its SDK.

What goes wrong there becomes a member of our error tree, with the engine's own words in it.
"""

from __future__ import annotations

import io
import tarfile
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO

from quickstart.errors import (
    ArtifactMissingError,
    NotAuthorisedError,
    NotReadyError,
    OutOfResourceError,
    RivaQsError,
    UnsupportedError,
    UsageError,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from quickstart.backends.container import ContainerSpec

PATIENCE = 10
_MISSING, _CONFLICT = 404, 409
_SERVER_ERROR = 500
_OUT_OF_MEMORY = 137


@dataclass(frozen=True)
class Facts:
    """What an engine says of itself and of its host."""

    version: str
    architecture: str
    runtimes: tuple[str, ...] = ()
    cdi: tuple[str, ...] = ()
    rootless: bool = False


@dataclass(frozen=True)
class Image:
    """An image that the engine has."""

    id: str
    name: str
    platform: str
    size: int
    labels: dict[str, str]
    digests: tuple[str, ...]
    user: str
    created: str


@dataclass(frozen=True)
class Container:
    """What an engine knows of one container."""

    id: str
    name: str
    status: str
    pid: int
    exit_code: int
    oom_killed: bool
    error: str
    started_at: str
    image_id: str
    labels: dict[str, str]
    health: str

    @property
    def running(self) -> bool:
        """Whether its program runs."""
        return self.status in {"running", "paused", "restarting"}


class Engine:
    """A connection to one engine; containers and volumes go by their names."""

    def __init__(self, client: Any, address: str) -> None:  # noqa: ANN401 - the SDK's own class
        self._api = client
        self.address = address

    def facts(self) -> Facts:
        """Return what the engine says of itself."""
        with self._doing("ask what it can do"):
            info = self._api.info()
        devices = info.get("DiscoveredDevices") or []
        return Facts(
            version=info.get("ServerVersion", ""),
            architecture=info.get("Architecture", ""),
            runtimes=tuple(sorted(info.get("Runtimes") or {})),
            cdi=tuple(d["ID"] for d in devices if d.get("Source") == "cdi"),
            rootless=any("rootless" in option for option in info.get("SecurityOptions") or ()),
        )

    def close(self) -> None:
        """Close the connection."""
        self._api.close()

    def data_root(self) -> str:
        """Return the folder where the engine keeps its data, on its own machine."""
        with self._doing("ask where it keeps its data"):
            return str(self._api.info().get("DockerRootDir") or "")

    def save_image(self, name: str, sink: BinaryIO) -> None:
        """Write an image, as `docker save` does, to a stream."""
        with self._doing(f"save the image {name}"), self._patient():
            sink.writelines(self._api.get_image(name))

    def load_image(self, stream: BinaryIO) -> None:
        """Take over an image that was saved."""
        with self._doing("load an image"), self._patient():
            for row in self._api.load_image(stream):
                if "error" in row:
                    raise _from_words("cannot load the image", str(row["error"]), "")

    @contextmanager
    def _patient(self) -> Iterator[None]:
        """Let an answer take its time: an engine packs a whole image before it says a word."""
        self._api.timeout = None
        try:
            yield
        finally:
            self._api.timeout = PATIENCE

    def image(self, name: str) -> Image | None:
        """Return an image that is there."""
        with self._doing(f"look at the image {name}", missing=True):
            return _image(self._api.inspect_image(name), name)
        return None

    def images(self, label: str) -> list[Image]:
        """Return the images that carry a label."""
        with self._doing("list its images"):
            rows = self._api.images(filters={"label": label})
        names = {name for row in rows for name in row.get("RepoTags") or ()}
        named = sorted(names - {"<none>:<none>"})
        return [image for image in map(self.image, named) if image]

    def pull(
        self, name: str, credentials: Mapping[str, str] | None = None
    ) -> Iterator[dict[str, Any]]:
        """Fetch an image, and yield what the engine says of its progress."""
        repository, tag = split_name(name)
        auth = dict(credentials) if credentials else None
        with self._doing(f"pull the image {name}"):
            rows = self._api.pull(repository, tag, stream=True, decode=True, auth_config=auth)
            for row in rows:
                if "error" in row:
                    raise _from_words(f"cannot pull the image {name}", str(row["error"]), "")
                yield row

    def build(self, context: bytes, **options: Any) -> Iterator[str]:  # noqa: ANN401 - the SDK's
        """Build an image of a context, and yield the lines of the build's log."""
        with self._doing("build an image"):
            rows = self._api.build(
                fileobj=io.BytesIO(context), custom_context=True, decode=True, rm=True, **options
            )
            for row in rows:
                if "error" in row:
                    raise _from_words("the build failed", str(row["error"]).strip(), "")
                yield from str(row.get("stream", "")).splitlines()

    def create(self, spec: ContainerSpec, secrets: Mapping[str, str], **labels: str) -> str:
        """Make a container, put its secrets into it, and return its id; it does not run yet."""
        with self._doing(f"make the container {spec.name or spec.image}"):
            made = self._api.create_container_from_config(
                self._config(spec, labels), spec.name or None
            )
            wanted = {name: secrets[name].encode() for name in spec.secrets}
            if wanted:
                archive = _secrets_archive(wanted, _numeric(spec.user or self._user(spec.image)))
                self._api.put_archive(made["Id"], "/run", archive)
        identity: str = made["Id"]
        return identity

    def start(self, container: str) -> None:
        """Run the program of a container.

        Raises:
            RivaQsError: The engine cannot; the container stays in the state Created.
        """
        with self._doing(f"start the container {container}"):
            self._api.start(container)

    def container(self, name: str) -> Container | None:
        """Return what is known of a container."""
        with self._doing(f"look at the container {name}", missing=True):
            return _container(self._api.inspect_container(name))
        return None

    def wait(self, container: str) -> int:
        """Wait for a container's end and return its exit code."""
        with self._doing(f"wait for the container {container}"):
            code: int = self._api.wait(container, timeout=None)["StatusCode"]
        return code

    def stop(self, container: str, patience: int) -> None:
        """Ask a container's program to end, and kill it after some seconds."""
        with self._doing(f"stop the container {container}", missing=True):
            self._api.stop(container, timeout=patience)

    def remove(self, container: str) -> None:
        """Remove a container, running or not; one that is gone already is fine."""
        with self._doing(f"remove the container {container}", missing=True):
            self._api.remove_container(container, force=True, v=True)

    def rename(self, container: str, name: str) -> None:
        """Give a container another name."""
        with self._doing(f"rename the container {container}"):
            self._api.rename(container, name)

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
        with self._doing(f"read the log of the container {container}"):
            yield from _lines(
                self._api.logs(container, stream=True, follow=follow, tail=last, since=since)
            )

    def publisher(self, port: int) -> str:
        """Return the name of the running container that publishes a port; empty for none."""
        with self._doing("list its containers"):
            rows = self._api.containers(filters={"publish": str(port)})
        return rows[0]["Names"][0].lstrip("/") if rows else ""

    def read_file(self, container: str, path: str) -> bytes:
        """Return a file of a container, running or not.

        Raises:
            ArtifactMissingError: There is no such file.
        """
        with self._doing(f"read {path} of the container {container}"):
            chunks, _ = self._api.get_archive(container, path)
            with tarfile.open(fileobj=io.BytesIO(b"".join(chunks))) as archive:
                file = archive.extractfile(archive.getmembers()[0])
                return file.read() if file else b""

    def memory(self, container: str) -> int:
        """Return how many bytes a container's programs hold, 0 where the engine does not know."""
        with self._doing(f"measure the container {container}", missing=True):
            usage = self._api.stats(container, stream=False, one_shot=True)["memory_stats"]
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
        with self._doing(f"run {spec.image}"):
            config = self._config(spec, {})
            config["HostConfig"]["AutoRemove"] = True
            streams = {"AttachStdin": True, "OpenStdin": True, "StdinOnce": True}
            made = self._api.create_container_from_config({**config, **streams}, spec.name or None)
            wanted = {"stdin": 1, "stdout": 1, "stderr": 1, "stream": 1}
            channel = self._api.attach_socket(made["Id"], params=wanted)
            self._api.start(made["Id"])
        return getattr(channel, "_sock", channel)

    def volume_exists(self, name: str) -> bool:
        """Say whether there is a volume."""
        with self._doing(f"look at the volume {name}", missing=True):
            self._api.inspect_volume(name)
            return True
        return False

    def create_volume(self, name: str, **labels: str) -> None:
        """Make a volume, unless it is there."""
        with self._doing(f"make the volume {name}"):
            self._api.create_volume(name, labels=labels)

    def volume_users(self, name: str) -> list[str]:
        """Return the names of the containers, running or not, that have a volume."""
        with self._doing(f"see who has the volume {name}"):
            rows = self._api.containers(all=True, filters={"volume": name})
        return [row["Names"][0].lstrip("/") for row in rows]

    def remove_volume(self, name: str) -> None:
        """Remove a volume; one that is gone already is fine.

        Raises:
            OutOfResourceError: A container has it.
        """
        users = self.volume_users(name)
        if users:
            raise OutOfResourceError(
                f"the volume {name} is in use by the container {', '.join(users)}",
                f"docker rm -f {users[0]}, then try again",
            )
        with self._doing(f"remove the volume {name}", missing=True):
            self._api.remove_volume(name)

    def _user(self, image: str) -> str:
        """Return the user that an image's programs run as."""
        known = self.image(image)
        return known.user if known else ""

    def _config(self, spec: ContainerSpec, labels: Mapping[str, str]) -> dict[str, Any]:
        """Return a spec as the engine's API takes it."""
        host = self._api.create_host_config(**_host_options(spec))
        config: dict[str, Any] = self._api.create_container_config(
            spec.image,
            list(spec.full_command),
            environment=spec.full_environment,
            ports=[port.container for port in spec.ports],
            labels={**dict(spec.labels), **labels},
            user=spec.user or None,
            host_config=host,
            healthcheck=None if spec.healthcheck else {"test": ["NONE"]},
        )
        return config

    @contextmanager
    def _doing(self, what: str, *, missing: bool = False) -> Iterator[None]:
        """Translate what the SDK raises; with `missing`, a thing that is not there is no error."""
        from docker.errors import APIError, DockerException

        try:
            yield
        except APIError as error:
            if not (missing and error.response is not None and error.status_code == _MISSING):
                words = str(error.explanation or error)
                raise _from_words(f"the Docker Engine could not {what}", words, what) from error
        except (DockerException, OSError) as error:
            raise _unreachable(self.address, error) from error


def connect() -> Engine:
    """Return a connection to the engine that DOCKER_HOST names, or to the local one.

    Raises:
        UnsupportedError: There is no engine.
        NotAuthorisedError: This user may not talk to it.
        NotReadyError: It does not answer.
    """
    from docker.errors import DockerException
    from docker.utils import kwargs_from_env

    from docker import APIClient

    options = kwargs_from_env()
    address = str(options.get("base_url") or "unix:///var/run/docker.sock")
    try:
        return Engine(APIClient(version="auto", timeout=PATIENCE, **options), address)
    except (DockerException, OSError) as error:
        raise _unreachable(address, error) from error


def architecture(machine: str) -> str:
    """Return the architecture that images are named for, from what a kernel calls its machine."""
    return {"x86_64": "amd64", "aarch64": "arm64"}.get(machine, machine)


def split_name(image: str) -> tuple[str, str]:
    """Return the repository and the tag (or digest) of an image's name."""
    repository, at, digest = image.partition("@")
    if at:
        return repository, digest
    head, slash, last = image.rpartition("/")
    name, _, tag = last.partition(":")
    return f"{head}{slash}{name}", tag or "latest"


def _unreachable(address: str, error: Exception) -> RivaQsError:
    """Return the error for an engine that cannot be talked to, from the cause underneath."""
    causes = list(_causes(error))
    tried = f"the Docker Engine at {address}"
    if any(isinstance(cause, PermissionError) for cause in causes):
        return NotAuthorisedError(
            f"no permission to talk to {tried}",
            "sudo usermod -aG docker $USER, then log in again (groups are read at login)",
        )
    if any(isinstance(cause, TimeoutError) for cause in causes):
        return NotReadyError(
            f"{tried} accepts connections and does not answer within {PATIENCE} s",
            "look at `systemctl status docker` and `journalctl -u docker`; restart it",
        )
    if any(isinstance(c, (FileNotFoundError, ConnectionRefusedError)) for c in causes):
        return UnsupportedError(
            f"there is no Docker Engine at {address}",
            "install or start Docker, or set DOCKER_HOST; backend=embedded needs none",
        )
    return UnsupportedError(f"cannot talk to {tried}: {error}", "check DOCKER_HOST")


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error and everything that it was raised for, or that it carries."""
    seen: list[BaseException] = []
    waiting = [error]
    while waiting:
        each = waiting.pop()
        if isinstance(each, BaseException) and each not in seen:
            seen.append(each)
            yield each
            waiting += [each.__cause__, each.__context__, *each.args, getattr(each, "reason", None)]


# What an engine's words mean, the first that fits: an error of ours and what to do next.
_MEANINGS: tuple[tuple[str, type[RivaQsError], str], ...] = (
    (
        "no space left on device|disk quota exceeded",
        OutOfResourceError,
        "free some space where Docker keeps its data: `docker system df` shows what holds it",
    ),
    (
        "port is already allocated|address already in use",
        OutOfResourceError,
        "stop what holds the port (`docker ps` shows containers), or set another one",
    ),
    (
        (
            "could not select device driver|unknown or invalid runtime name"
            "|unknown runtime specified|nvidia-container-cli|unresolvable cdi devices"
            "|invoking the nvidia container runtime hook directly"
        ),
        UnsupportedError,
        "container_gpu_access says how a GPU is given, and gpus_to_use which; none is no GPU",
    ),
    (
        "exec format error|does not match the specified platform|no matching manifest",
        UnsupportedError,
        "take an image for this machine's architecture: `riva-qs image build` makes one",
    ),
    (
        "docker-init",
        UnsupportedError,
        "the engine lacks its init program: install the package tini, or Docker's own packages",
    ),
    (
        r"unauthorized|access denied|authentication required|forbidden|\b40[13]\b",
        NotAuthorisedError,
        "check NGC_API_KEY, and that its account may have this image",
    ),
    (
        "no such host|timeout|connection refused|temporary failure|network is unreachable|x509",
        RivaQsError,
        "check this machine's network, proxy and DNS",
    ),
    (
        "cannot assign requested address",
        UsageError,
        "riva_speech_api_host must be an address of the machine that the engine runs on",
    ),
    (
        "error setting rlimit",
        UnsupportedError,
        "this engine may not raise limits (rootless engines may not): container_ulimits=false",
    ),
    ("volume is in use", OutOfResourceError, "remove the containers that have it"),
    ("no such image|manifest unknown|not found", ArtifactMissingError, "check the name"),
)


def _from_words(message: str, words: str, what: str) -> RivaQsError:
    """Return our error for what an engine says."""
    import re

    for pattern, kind, hint in _MEANINGS:
        if re.search(pattern, words.lower()):
            return kind(f"{message}: {words}", hint)
    return RivaQsError(f"{message}: {words}", "the engine's own log may say more" if what else "")


def _host_options(spec: ContainerSpec) -> dict[str, Any]:
    """Return the part of a spec that is about the host, as the SDK takes it."""
    from docker.types import Ulimit

    options: dict[str, Any] = {
        "binds": [str(mount) for mount in spec.mounts],
        "port_bindings": {p.container: (p.host, p.published or None) for p in spec.ports},
        "ulimits": [Ulimit(name=name, soft=n, hard=n) for name, n in spec.ulimits],
        "tmpfs": dict.fromkeys(spec.tmpfs, ""),
        "devices": [f"{device}:{device}:rwm" for device in spec.devices],
        "ipc_mode": spec.ipc or None,
        "mem_limit": spec.memory or None,
        "init": spec.init or None,
        "read_only": spec.read_only,
        **_gpu_options(spec),
    }
    if spec.unprivileged:
        options |= {"cap_drop": ["ALL"], "security_opt": ["no-new-privileges"]}
    return options


def _gpu_options(spec: ContainerSpec) -> dict[str, Any]:
    """Return how a container gets its GPUs, as the SDK takes it."""
    from docker.types import DeviceRequest

    gpu = spec.gpu
    if gpu.way == "runtime":
        return {"runtime": "nvidia"}
    if gpu.way == "cdi":
        return {"device_requests": [DeviceRequest(driver="cdi", device_ids=list(gpu.cdi))]}
    if gpu.way == "gpus":
        names = list(gpu.names)
        count = 0 if names else -1 if gpu.devices == "all" else int(gpu.devices)
        request = DeviceRequest(count=count, device_ids=names, capabilities=[["gpu"]])
        return {"device_requests": [request]}
    return {}


def _numeric(user: str) -> tuple[int, int]:
    """Return the ids in `uid:gid`; a name, and no user at all, is taken for root."""
    uid, _, gid = user.partition(":")
    if not uid.isdigit():
        return 0, 0
    return int(uid), int(gid) if gid.isdigit() else int(uid)


def _secrets_archive(files: Mapping[str, bytes], owner: tuple[int, int]) -> bytes:
    """Return an archive to unpack in /run: a folder that one user may read, with a file each."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for folder, mode in (("secrets", 0o755), ("secrets/riva-qs", 0o500)):
            archive.addfile(_member(folder, mode, owner, tarfile.DIRTYPE))
        for name, data in files.items():
            member = _member(f"secrets/riva-qs/{name}", 0o400, owner, tarfile.REGTYPE)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


def _member(name: str, mode: int, owner: tuple[int, int], kind: bytes) -> tarfile.TarInfo:
    """Return the entry of a folder or file in an archive."""
    member = tarfile.TarInfo(name)
    member.mode, member.type = mode, kind
    member.uid, member.gid = owner
    return member


def _lines(chunks: Iterator[bytes]) -> Iterator[str]:
    """Yield the lines of a stream of bytes that is cut anywhere."""
    rest = b""
    for chunk in chunks:
        *lines, rest = (rest + chunk).split(b"\n")
        yield from (line.decode(errors="replace").rstrip("\r") for line in lines)
    if rest:
        yield rest.decode(errors="replace")


def _image(data: Mapping[str, Any], name: str) -> Image:
    """Return an image from the engine's answer."""
    config = data.get("Config") or {}
    return Image(
        id=data["Id"],
        name=name,
        platform=f"{data.get('Os', 'linux')}/{data.get('Architecture', '')}",
        size=int(data.get("Size", 0)),
        labels=dict(config.get("Labels") or {}),
        digests=tuple(data.get("RepoDigests") or ()),
        user=config.get("User") or "",
        created=data.get("Created", ""),
    )


def _container(data: Mapping[str, Any]) -> Container:
    """Return a container from the engine's answer."""
    state = data["State"]
    return Container(
        id=data["Id"],
        name=data["Name"].lstrip("/"),
        status=state["Status"],
        pid=int(state.get("Pid") or 0),
        exit_code=int(state.get("ExitCode") or 0),
        oom_killed=bool(state.get("OOMKilled")),
        error=state.get("Error") or "",
        started_at=state.get("StartedAt") or "",
        image_id=data["Image"],
        labels=dict(data["Config"].get("Labels") or {}),
        health=(state.get("Health") or {}).get("Status", ""),
    )
