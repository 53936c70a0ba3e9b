"""Which containers the settings ask for: pure functions of settings and of facts.

`image=riva` follows the official scripts (riva_init.sh and riva_start.sh of 2.19) to the letter;
docs/containers.md lists where it differs on purpose, and why.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from quickstart import __version__
from quickstart.backends.base import (
    http_arguments,
    service_arguments,
    tls_arguments,
    tls_files,
)
from quickstart.backends.container import NO_GPU, ContainerSpec, Gpu, Mount, Port

if TYPE_CHECKING:
    from quickstart.backends.base import ServerSpec
    from quickstart.config import Settings

SERVER, DEPLOY = "server", "deploy"
LABEL = "riva-qs"
GRPC_PORT, HTTP_PORT, METRICS_PORT = 50051, 50000, 8002
LISTING = "/tmp/riva-qs-listing"  # noqa: S108 - in the container, which has nothing else in it
_TRITON_PORTS = (8000, 8001, 8002)
_RIVA_LIMITS = (("memlock", -1), ("stack", 67108864))
_TLS_PLACES = {
    "--ssl_server_cert": "/ssl/server.crt",
    "--ssl_server_key": "/ssl/server.key",
    "--ssl_root_cert": "/ssl/root_server.crt",
}
_JETSON_PORT = 8888
JETSON_DEVICES = ("/dev/bus/usb", "/dev/snd")
_UNITS = {"": 1, "b": 1, "k": 2**10, "m": 2**20, "g": 2**30}

# NVIDIA's riva-deploy writes the path of the repository into what it makes, so it must deploy to
# where the server will read: /data/models. A link leads from there to the draft. Arguments: the
# draft, and the owner that its files get.
_DEPLOY_RIVA = f"""
set -eu
mkdir -p /data "/store/$1/models"
ln -sfn /store/rmir /data/rmir
ln -sfn "/store/$1/models" /data/models
status=0
deploy_all_models /data/rmir /data/models || status=$?
cd /data/models/
find . -type f -size +0c >{LISTING}
grep -HEs '^ *(platform|backend|default_model_filename) *:' */config.pbtxt >>{LISTING} || :
[ -z "$2" ] || chown -R "$2" "/store/$1"
exit $status
"""
_FIND_PLUGINS = ("find", "/data/plugins", "-name", "*.so", "-size", "+0c")


@dataclass(frozen=True)
class Host:
    """What containers depend on besides the settings.

    Attributes:
        image: The name of the image.
        store: The absolute path or the volume that holds the models.
        gpu: How GPUs are given.
        owner: `uid:gid` of the store's folder; empty for a volume.
        devices: Files of /dev that are there.
        plugins: Paths of Triton plugins, as the container sees them.
    """

    image: str
    store: str
    gpu: Gpu = NO_GPU
    owner: str = ""
    devices: tuple[str, ...] = ()
    plugins: tuple[str, ...] = ()


def server(settings: Settings, spec: ServerSpec, host: Host) -> ContainerSpec:
    """Return the container of the server."""
    riva = settings.image == "riva"
    made = _riva_server(settings, host) if riva else _open_server(settings, spec, host)
    facts = {"role": SERVER, "generation": spec.generation, "uri": spec.uri, "store": host.store}
    labels = tuple((f"{LABEL}.{name}", value) for name, value in facts.items())
    return replace(
        made,
        name=settings.riva_daemon_speech,
        labels=(*labels, (f"{LABEL}.version", __version__)),
        memory=bytes_of(settings.container_memory),
    )


def deploy(
    settings: Settings, host: Host, rmirs: tuple[str, ...], draft: str, *, keyed: bool
) -> ContainerSpec:
    """Return the container that deploys archives; their paths and the draft's are the store's."""
    riva = settings.image == "riva"
    made = _riva_deploy(host, draft) if riva else _open_deploy(host, rmirs, draft)
    return replace(
        made,
        name=deploy_name(settings),
        secrets=("MODEL_DEPLOY_KEY",) if keyed else (),
        labels=((f"{LABEL}.role", DEPLOY), (f"{LABEL}.store", host.store)),
        memory=bytes_of(settings.container_memory),
    )


def image_of(variant: str) -> str:
    """Return the name of our image of a variant."""
    return f"riva-qs/speech:{__version__}-{variant}"


def default_image(architecture: str) -> str:
    """Return our image for an engine's architecture: on arm64 that of JetPack 6."""
    return image_of("jetpack6" if architecture == "arm64" else "cpu")


def finder(image: str, store: str) -> ContainerSpec:
    """Return the container that looks for Triton's plugins in a volume, as riva_start.sh does."""
    labels = ((f"{LABEL}.role", "finder"),)
    mounts = (Mount(store, "/data", read_only=True),)
    return ContainerSpec("", image, _FIND_PLUGINS, mounts=mounts, labels=labels)


def names(settings: Settings) -> tuple[str, str, str]:
    """Return the names that containers of a location go by: server, the one before, and deploy."""
    server = settings.riva_daemon_speech
    return (server, f"{server}-before", deploy_name(settings))


def deploy_name(settings: Settings) -> str:
    """Return the name of the container that deploys: the official one for NVIDIA's image."""
    return (
        "riva-service-maker"
        if settings.image == "riva"
        else f"{settings.riva_daemon_speech}-deploy"
    )


def bytes_of(text: str) -> int:
    """Return how many bytes `512m` or `8g` are, as `docker --memory` reads it; 0 for nothing."""
    match = re.fullmatch(r"(\d+)([bkmg]?)", text.lower())
    return int(match[1]) * _UNITS[match[2]] if match else 0


def _open_server(settings: Settings, spec: ServerSpec, host: Host) -> ContainerSpec:
    """Return the server of our image: it reads, writes nothing, and needs no privilege.

    With TLS nobody asks for its health from inside, who would need a certificate for that.
    """
    tls_mounts, tls_arguments = _tls(settings)
    http = _open_http(spec)
    return ContainerSpec(
        name="",
        image=host.image,
        command=(
            "start-riva",
            f"--riva-uri=0.0.0.0:{GRPC_PORT}",
            f"--model_repository=/data/generations/{spec.generation}/models",
            *service_arguments(spec),
            *http_arguments(*(inside for inside, _ in http)),
            *spec.options,
            *tls_arguments,
        ),
        mounts=(Mount(host.store, "/data", read_only=True), *tls_mounts),
        ports=(
            Port(GRPC_PORT, spec.port, spec.host),
            *(Port(inside, outside, spec.host) for inside, outside in http if outside),
        ),
        gpu=host.gpu,
        tmpfs=("/tmp",),  # noqa: S108 - in the container
        user=host.owner,
        read_only=True,
        unprivileged=True,
        healthcheck=not tls_mounts,
    )


def _open_http(spec: ServerSpec) -> tuple[tuple[int, int], tuple[int, int]]:
    """Return the ports of HTTP and of metrics, inside and outside; 0 where there is none."""
    return (
        (HTTP_PORT if spec.http_port else 0, spec.http_port),
        (METRICS_PORT if spec.metrics_port else 0, spec.metrics_port),
    )


def _riva_server(settings: Settings, host: Host) -> ContainerSpec:
    """Return the server of NVIDIA's image, as riva_start.sh runs it."""
    port = settings.riva_speech_api_port
    switches = {
        "asr": settings.service_enabled_asr,
        "tts": settings.service_enabled_tts,
        "nlp": settings.service_enabled_nlp,
    }
    services = (f"--{name}_service={str(on).lower()}" for name, on in switches.items())
    tls_mounts, tls_arguments = _tls(settings)
    tegra = settings.riva_target_gpu_family == "tegra"
    return ContainerSpec(
        name="",
        image=host.image,
        command=("start-riva", f"--riva-uri=0.0.0.0:{port}", *services, *tls_arguments),
        environment=_riva_environment(settings, host),
        secrets=("RIVA_API_KEY",) if settings.riva_api_key else (),
        mounts=(Mount(host.store, "/data"), *tls_mounts),
        ports=_riva_ports(settings, tegra=tegra),
        gpu=host.gpu,
        devices=tuple(d for d in JETSON_DEVICES if d in host.devices) if tegra else (),
        ulimits=_RIVA_LIMITS if settings.container_ulimits else (),
        ipc="host",
        init=True,
    )


def _riva_environment(settings: Settings, host: Host) -> tuple[tuple[str, str], ...]:
    """Return the environment of riva_start.sh; what is not set is passed empty, as there."""
    empty_key = () if settings.riva_api_key else (("RIVA_API_KEY", ""),)
    return (
        ("RIVA_SERVER_HTTP_PORT", str(settings.riva_speech_api_http_port)),
        ("NMT_REMOTE_ASR_SERVICE", settings.nmt_remote_asr_service),
        ("NMT_REMOTE_TTS_SERVICE", settings.nmt_remote_tts_service),
        ("LD_PRELOAD", ":".join(host.plugins)),
        *empty_key,
        ("RIVA_API_NGC_ORG", settings.riva_api_ngc_org),
        ("RIVA_EULA", settings.riva_eula),
    )


def _riva_ports(settings: Settings, *, tegra: bool) -> tuple[Port, ...]:
    """Return the ports of riva_start.sh: Triton's are fixed on Jetson, and any elsewhere."""
    host = settings.riva_speech_api_host
    own = (settings.riva_speech_api_port, settings.riva_speech_api_http_port)
    fixed = (*own, *_TRITON_PORTS, _JETSON_PORT) if tegra else own
    loose = () if tegra else _TRITON_PORTS
    return (*(Port(p, p, host) for p in fixed), *(Port(p, 0, host) for p in loose))


def _tls(settings: Settings) -> tuple[tuple[Mount, ...], tuple[str, ...]]:
    """Return the mounts and the arguments of TLS; none without a certificate and its key."""
    files = tls_files(settings).items()
    mounts = (Mount(path, _TLS_PLACES[option], read_only=True) for option, path in files)
    return tuple(mounts), tls_arguments(settings, _TLS_PLACES)


def _open_deploy(host: Host, rmirs: tuple[str, ...], draft: str) -> ContainerSpec:
    """Return the container in which our image deploys."""
    archives = (f"/data/{rmir}" for rmir in rmirs)
    report = ("--report", f"/data/{draft}/report.json")
    return ContainerSpec(
        name="",
        image=host.image,
        command=("riva-deploy", *report, *archives, f"/data/{draft}/models"),
        mounts=(Mount(host.store, "/data"),),
        user=host.owner,
        unprivileged=True,
    )


def _riva_deploy(host: Host, draft: str) -> ContainerSpec:
    """Return the container in which NVIDIA's image deploys, as riva_init.sh runs it."""
    return ContainerSpec(
        name="",
        image=host.image,
        command=("/bin/sh", "-c", _DEPLOY_RIVA, "riva-qs", draft, host.owner),
        mounts=(Mount(host.store, "/store"),),
        gpu=host.gpu,
        init=True,
    )
