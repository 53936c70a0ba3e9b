"""A container's spec as the engine's API takes it, and its secrets as files."""

from __future__ import annotations

import io
import tarfile
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from quickstart.backends.container import ContainerSpec


def container_config(api: Any, spec: ContainerSpec, labels: Mapping[str, str]) -> dict[str, Any]:  # noqa: ANN401 - the SDK's
    """Return a spec as the engine's API takes it."""
    host = api.create_host_config(**_host_options(spec))
    config: dict[str, Any] = api.create_container_config(
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


def numeric_user(user: str) -> tuple[int, int]:
    """Return the ids in `uid:gid`; a name, and no user at all, is taken for root."""
    uid, _, gid = user.partition(":")
    if not _is_number(uid):
        return 0, 0
    return int(uid), int(gid) if _is_number(gid) else int(uid)


def _is_number(text: str) -> bool:
    """Whether a text is a number to the engine, to which other scripts' digits are letters."""
    return text.isascii() and text.isdecimal()


def secrets_archive(files: Mapping[str, bytes], owner: tuple[int, int]) -> bytes:
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
