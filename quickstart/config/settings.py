"""Every key, once: its type, its default, its meaning and its check.

The names are those of the official `config.sh`; the order matters, since a default may depend on
the keys before it.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

from quickstart import platforms
from quickstart.config import checks
from quickstart.config.keys import UNSET, Computed, Key, Setting, key, per_image

if TYPE_CHECKING:
    from collections.abc import Iterator


def _target(settings: Settings) -> str:
    """Return the part of the image's name that the organisation and the team make."""
    return "/".join(filter(None, (settings.riva_ngc_org, settings.riva_ngc_team)))


def _image(suffix: str) -> Computed[str]:
    """Return NVIDIA's image, as the official scripts put its name together."""
    return Computed(
        f"nvcr.io/NGC_TARGET/riva-speech:riva_ngc_image_version{suffix}",
        lambda s: f"nvcr.io/{s.ngc_target}/riva-speech:{s.riva_ngc_image_version}{suffix}",
    )


@dataclass(frozen=True)
class Settings:
    """Everything that can be configured; what is not given gets its default."""

    backend: str = key(
        "auto",
        "What runs the service: embedded (processes on this machine, no Docker and no account),\n"
        "docker (containers), or auto, which chooses and says why.",
        heading="What runs",
        choices=("auto", "embedded", "docker"),
    )
    image: str = key(
        "open",
        "Whose image and models: open (ours; no account is needed) or riva (NVIDIA's, from NGC,\n"
        "in containers; with a key). Many defaults below depend on it.",
        choices=("open", "riva"),
    )
    riva_target_gpu_family: str = key(
        Computed("detected on this host", lambda _: platforms.gpu_family()),
        "The platform: tegra (Jetson, L4T) or non-tegra (everything else). It decides which image\n"
        "and models of NVIDIA's fit, and what a container is given of the host.",
        choices=("non-tegra", "tegra"),
    )
    riva_tegra_platform: str = key(
        "orin",
        "The Jetson that prebuilt models are for; the last part of their version.",
        choices=("orin", "xavier", "thor"),
    )
    service_enabled_asr: bool = key(
        default=True,
        doc="Serve speech recognition.",
        heading="Services",
    )
    service_enabled_nlp: bool = key(
        per_image(open=False, riva=True),
        "Serve language processing. With image=riva it needs en-US among asr_language_code.",
    )
    service_enabled_tts: bool = key(
        per_image(open=False, riva=True),
        "Serve speech synthesis.",
    )
    service_enabled_nmt: bool = key(
        default=False,
        doc="Serve translation.",
    )
    asr_acoustic_model: str = key(
        per_image(open="english", riva="conformer"),
        "The speech recognition model: with image=open a name of the embedded catalogue, with\n"
        "image=riva one of NVIDIA's; docs/configuration.md lists them.",
        heading="Speech recognition",
        check=checks.wrong_word,
    )
    asr_language_code: tuple[str, ...] = key(
        ("en-US",),
        "The languages of speech recognition, separated by spaces: codes such as en-US, or multi\n"
        "for a multilingual model.",
        check=checks.wrong_languages,
    )
    asr_accessory_model: str = key(
        "",
        "A companion of parakeet_1.1b: diarizer (who speaks), silero (voice activity) or tele\n"
        "(telephony). silero_diarizer came with 2.24. Empty: none.",
        choices=("", "diarizer", "silero", "tele", "silero_diarizer"),
    )
    use_asr_greedy_decoder: bool = key(
        default=False,
        doc="true: the greedy decoder instead of the one with a language model.",
    )
    use_asr_streaming_throughput_mode: bool = key(
        default=False,
        doc="true: streaming for many at once instead of for the lowest latency.",
    )
    deploy_offline_diarizer: bool = key(
        default=False,
        doc="true: also a model that says who speaks in a whole recording.",
    )
    tts_model: str = key(
        "fastpitch_hifigan",
        "The speech synthesis model, one of NVIDIA's.",
        heading="Speech synthesis and translation",
        check=checks.wrong_word,
    )
    tts_language_code: tuple[str, ...] = key(
        ("en-US",),
        "The languages of speech synthesis, separated by spaces; multi for magpie.",
        check=checks.wrong_languages,
    )
    nmt_remote_asr_service: str = key(
        "0.0.0.0:50051",
        "The recognition service that speech translation uses, host:port.",
        check=checks.wrong_endpoint,
    )
    nmt_remote_tts_service: str = key(
        "0.0.0.0:50051",
        "The synthesis service that speech translation uses, host:port.",
        check=checks.wrong_endpoint,
    )
    riva_model_loc: str = key(
        per_image(open="riva-model-repo", riva="riva-model-repo", tegra="./model_repository"),
        "Where models live (rmir/ and models/ below it). A plain name is, for the embedded\n"
        "backend, a folder of that name in ~/.local/share/riva-qs ($XDG_DATA_HOME/riva-qs), and\n"
        "for docker a volume. What has a slash is a path; a relative one starts at the folder of\n"
        "this file.",
        heading="Models and where they come from",
        check=checks.wrong_location,
        resolve=checks.location,
    )
    keep_generations: int = key(
        1,
        "How many older generations of deployed models init keeps for riva-qs rollback. Files\n"
        "that generations share are stored once.",
        check=checks.wrong_count,
    )
    use_existing_rmirs: bool = key(
        default=False,
        doc="true: init fetches nothing and deploys the archives that you put into rmir/.",
    )
    model_deploy_key: str = key(
        "tlt_encode",
        "The key of encrypted archives. Better given in the environment than in this file.",
        name="MODEL_DEPLOY_KEY",
        variable="MODEL_DEPLOY_KEY",
        secret=True,
    )
    riva_ngc_org: str = key(
        "nvidia",
        "The NGC organisation of NVIDIA's models and image.",
        check=checks.wrong_name,
    )
    riva_ngc_team: str = key(
        "riva",
        "The team in that organisation. Empty: none.",
        check=checks.wrong_optional_name,
    )
    riva_ngc_image_version: str = key(
        "2.19.0",
        "The version of NVIDIA's image.",
        check=checks.wrong_name,
    )
    riva_ngc_model_version: str = key(
        "2.19.0",
        "The version of NVIDIA's models; it may differ from the image's.",
        check=checks.wrong_name,
    )
    models_asr: tuple[str, ...] = key(
        (),
        "The speech recognition models, where they are not to follow from the keys above: a list\n"
        "separated by spaces of org/team/name:version (NGC), https://host/file.rmir#sha256=HEX,\n"
        "file:///folder/file.rmir#sha256=HEX, or names of the embedded catalogue.",
        check=checks.wrong_references,
    )
    models_nlp: tuple[str, ...] = key(
        (),
        "The same for language processing.",
        check=checks.wrong_references,
    )
    models_tts: tuple[str, ...] = key(
        (),
        "The same for speech synthesis.",
        check=checks.wrong_references,
    )
    models_nmt: tuple[str, ...] = key(
        (),
        "The same for translation.",
        check=checks.wrong_references,
    )
    offline: bool = key(
        default=False,
        doc="true: nothing is asked of the network. What is not on this machine is an error.",
    )
    ngc_api_key: str = key(
        "",
        "The NGC key that fetches NVIDIA's image and models. Better given in the environment, or\n"
        "kept in ~/.ngc/config, than in this file.",
        name="NGC_API_KEY",
        heading="NGC and Riva Enterprise",
        variable="NGC_API_KEY",
        secret=True,
    )
    riva_api_key: str = key(
        "",
        "Riva Enterprise: the key that the server shows. Better given in the environment.",
        name="RIVA_API_KEY",
        variable="RIVA_API_KEY",
        secret=True,
    )
    riva_api_ngc_org: str = key(
        "",
        "Riva Enterprise: your NGC organisation.",
        name="RIVA_API_NGC_ORG",
        variable="RIVA_API_NGC_ORG",
        check=checks.wrong_optional_name,
    )
    riva_eula: str = key(
        "",
        "Riva Enterprise: accept, once you have read the licence and agree to it.",
        name="RIVA_EULA",
        choices=("", "accept"),
        variable="RIVA_EULA",
    )
    ngc_target: str = key(
        Computed("riva_ngc_org/riva_ngc_team", _target),
        "The path of NVIDIA's image in its registry.",
        name="NGC_TARGET",
        heading="Containers",
        check=checks.wrong_target,
    )
    image_speech_api: str = key(
        per_image(open="", riva=_image(""), tegra=_image("-l4t-aarch64")),
        "The image that deploys and serves. Empty: the one that `riva-qs image build` makes.",
        check=checks.wrong_image,
    )
    riva_daemon_speech: str = key(
        "riva-speech",
        "The name of the server's container.",
        check=checks.wrong_name,
    )
    riva_daemon_client: str = key(
        per_image(open="riva-client", riva="riva-client", tegra=""),
        "The name of the client's container.",
        check=checks.wrong_optional_name,
    )
    gpus_to_use: str = key(
        per_image(open="auto", riva="device=0"),
        "The GPUs of the service: auto (one where there is one that works, else the CPU), none,\n"
        "all, a number, or device=0 and device=0,1 as `docker --gpus` takes them.",
        check=checks.wrong_gpus,
    )
    container_gpu_access: str = key(
        "auto",
        "How a container gets its GPUs: gpus (device requests, as `docker run --gpus`), runtime\n"
        "(--runtime=nvidia), cdi, or auto, which decides by `docker info` and says why.",
        choices=("auto", "gpus", "runtime", "cdi"),
    )
    container_memory: str = key(
        "",
        "The most memory that a container may hold, as `docker run --memory` takes it: 8g.\n"
        "Empty: no limit.",
        check=checks.wrong_memory,
    )
    container_ulimits: bool = key(
        default=True,
        doc="Give NVIDIA's server the limits of the official scripts (memlock, stack). false is\n"
        "for engines that may not raise limits, as one without root may not.",
    )
    riva_speech_api_host: str = key(
        "127.0.0.1",
        "The address that the gRPC service listens on. 0.0.0.0 lets other machines in, as the\n"
        "official scripts do.",
        heading="The service",
        check=checks.wrong_word,
    )
    riva_speech_api_port: int = key(
        50051,
        "The port of the gRPC service.",
        check=checks.wrong_port,
    )
    riva_speech_api_http_port: int = key(
        50000,
        "The port of the HTTP service: with image=open health, metrics and, unless gRPC has\n"
        "TLS, recognition by forms and WebSockets; 0 for none.",
        check=checks.wrong_optional_port,
    )
    server_metrics_port: int = key(
        0,
        "With image=open: a further port, for /metrics alone, as Prometheus reads it; 0 for none.",
        check=checks.wrong_optional_port,
    )
    server_max_requests: int = key(
        64,
        "With image=open: how many recognitions the server takes at once; it refuses more.",
        check=checks.wrong_amount,
    )
    server_max_batch: int = key(
        32,
        "With image=open: how many streams or utterances share one run of a model.",
        check=checks.wrong_amount,
    )
    server_threads: int = key(
        0,
        "With image=open: threads that run a model; 0 for one a core.",
        check=checks.wrong_count,
    )
    server_max_message: int = key(
        128,
        "With image=open: the largest message to and from clients, in MiB.",
        check=checks.wrong_message_size,
    )
    server_log_format: str = key(
        "text",
        "With image=open: how the server writes its log: text, or json for programs.",
        choices=("text", "json"),
    )
    server_log_transcripts: bool = key(
        default=False,
        doc="With image=open: log what was recognised, too. Without it neither audio nor text is\n"
        "ever logged.",
    )
    ssl_server_cert: str = key(
        "",
        "The server's certificate, a PEM file. With it and ssl_server_key the service speaks TLS.",
        check=checks.wrong_path,
        resolve=checks.absolute,
    )
    ssl_server_key: str = key(
        "",
        "The private key of ssl_server_cert, a PEM file.",
        check=checks.wrong_path,
        resolve=checks.absolute,
    )
    ssl_root_cert: str = key(
        "",
        "The certificate of the authority that signed them, a PEM file.",
        check=checks.wrong_path,
        resolve=checks.absolute,
    )
    ssl_use_mutual_auth: bool = key(
        default=False,
        doc="true: clients show a certificate of ssl_root_cert too.",
    )
    riva_timeout_sec: int = key(
        300,
        "How many seconds `start` waits for the service to answer.",
        check=checks.wrong_seconds,
        variable="RIVA_TIMEOUT_SEC",
    )
    deploy_silence_sec: int = key(
        3600,
        "How many seconds a deploy may say nothing before `init` ends it. Building large TensorRT\n"
        "engines is silent for many minutes.",
        check=checks.wrong_seconds,
    )
    readiness_audio: str = key(
        "",
        "The recording that `start` and `status` send to see whether the service answers. Empty:\n"
        "the packaged sample. Set it to one in your model's language and vocabulary.",
        check=checks.wrong_path,
        resolve=checks.absolute,
    )

    def __post_init__(self) -> None:
        """Give every key that was not given its default, in the order of the declarations."""
        for setting in SETTINGS.values():
            if getattr(self, setting.field) is UNSET:
                object.__setattr__(self, setting.field, setting.default(self))


def _declared() -> Iterator[Setting]:
    """Yield every setting in the order of its declaration."""
    for each in fields(Settings):
        declared: Key = each.metadata["key"]
        yield Setting(each.name, declared.name or each.name, str(each.type), declared)


SETTINGS: dict[str, Setting] = {setting.name: setting for setting in _declared()}
