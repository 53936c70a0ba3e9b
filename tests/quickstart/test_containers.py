"""Container specs: pure functions of settings, held against golden files."""

from __future__ import annotations

import json
import re
import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import quickstart
from quickstart.backends import gpu, plan
from quickstart.backends.base import http_arguments, server_spec
from quickstart.backends.container import ContainerSpec, Gpu, Mount, run_line
from quickstart.backends.docker.verdicts import ending
from quickstart.backends.engine.request import numeric_user
from quickstart.backends.engine.values import Facts, parse_container, parse_facts
from quickstart.config import Settings
from quickstart.errors import UnsupportedError

GOLDEN = Path(__file__).parent / "golden"
INFO = Path(__file__).parents[1] / "data" / "docker_info"
OPEN, RIVA = "riva-qs/speech:1-cpu", "nvcr.io/nvidia/riva/riva-speech:2.19.0"
L4T = f"{RIVA}-l4t-aarch64"
FOLDER, VOLUME = "/home/me/models", "riva-model-repo"
TLS = {"ssl_server_cert": "/tls/a.crt", "ssl_server_key": "/tls/a.key"}
MUTUAL = {**TLS, "ssl_root_cert": "/tls/ca.crt", "ssl_use_mutual_auth": True}
ENTERPRISE = {"riva_api_key": "KEY", "riva_api_ngc_org": "us", "riva_eula": "accept"}
JETSON = ("/dev/bus/usb", "/dev/snd")
X86 = {"riva_target_gpu_family": "non-tegra"}
TEGRA = {"riva_target_gpu_family": "tegra", "riva_model_loc": "/home/me/model_repository"}

Case = tuple[dict[str, Any], plan.Host]
CASES: dict[str, Case] = {
    "open-cpu-folder": (X86, plan.Host(OPEN, FOLDER, owner="1000:1000")),
    "open-cpu-volume": ({**X86, "container_memory": "8g"}, plan.Host(OPEN, VOLUME)),
    "open-cuda": (X86, plan.Host("riva-qs/speech:1-cuda", VOLUME, Gpu("gpus", "device=0,1"))),
    "open-cuda-cdi": (X86, plan.Host("riva-qs/speech:1-cuda", VOLUME, Gpu("cdi", "device=0"))),
    "open-all-interfaces": (
        {**X86, "riva_speech_api_host": "0.0.0.0", "riva_speech_api_port": 6000},
        plan.Host(OPEN, VOLUME),
    ),
    "open-operated": (
        {
            **X86,
            "server_metrics_port": 9102,
            "server_max_requests": 8,
            "server_max_batch": 4,
            "server_threads": 2,
            "server_max_message": 16,
            "server_log_format": "json",
            "server_log_transcripts": True,
        },
        plan.Host(OPEN, VOLUME),
    ),
    "open-tls": ({**X86, **TLS}, plan.Host(OPEN, FOLDER, owner="1000:1000")),
    "open-l4t": (
        TEGRA,
        plan.Host("riva-qs/speech:1-jetpack6", FOLDER, Gpu("runtime", "all"), "1000:1000", JETSON),
    ),
    "riva-x86": ({"image": "riva", **X86}, plan.Host(RIVA, VOLUME, Gpu("gpus", "device=0"))),
    "riva-x86-folder-plugins": (
        {"image": "riva", **X86},
        plan.Host(RIVA, FOLDER, Gpu("gpus", "all"), "1000:1000", (), ("/data/plugins/a.so",)),
    ),
    "riva-x86-tls": (
        {"image": "riva", **X86, **TLS},
        plan.Host(RIVA, VOLUME, Gpu("gpus", "device=0")),
    ),
    "riva-x86-mutual-tls": (
        {"image": "riva", **X86, **MUTUAL},
        plan.Host(RIVA, VOLUME, Gpu("gpus", "device=0")),
    ),
    "riva-x86-enterprise": (
        {"image": "riva", **X86, **ENTERPRISE},
        plan.Host(RIVA, VOLUME, Gpu("gpus", "device=0")),
    ),
    "riva-l4t": (
        {"image": "riva", **TEGRA},
        plan.Host(L4T, FOLDER, Gpu("runtime", "device=0"), "1000:1000", JETSON),
    ),
    "riva-l4t-without-sound": (
        {"image": "riva", **TEGRA},
        plan.Host(L4T, FOLDER, Gpu("runtime", "device=0"), "1000:1000", JETSON[:1]),
    ),
}  # fmt: skip


def server_of(case: Case) -> ContainerSpec:
    settings = Settings(**case[0])
    return plan.server(settings, server_spec(settings, "GENERATION"), case[1])


def deploy_of(case: Case) -> ContainerSpec:
    archives = ("rmir/a.rmir", "rmir/b.rmir")
    if case[0].get("image") == "riva" and case[0]["riva_target_gpu_family"] == "tegra":
        archives = ("prebuilt/a.tar.gz", "rmir/b.rmir")
    return plan.deploy(Settings(**case[0]), case[1], archives, "generations/DRAFT", keyed=True)


def shown(spec: ContainerSpec) -> str:
    """Return a `docker run` line with one argument a line, and what is not on it."""
    about = {"full_command": spec.full_command, "environment": spec.full_environment}
    lines = [shlex.quote(word) for word in shlex.split(run_line(spec))]
    return "\n".join([*lines, "", json.dumps(about, indent=2), ""])


@pytest.mark.parametrize("name", CASES)
def test_specs_are_the_golden_ones(name: str, request: pytest.FixtureRequest) -> None:
    """Every platform's two containers are those of its golden file (--write-golden writes it)."""
    path = GOLDEN / f"{name}.txt"
    text = "\n".join(shown(make(CASES[name])) for make in (server_of, deploy_of))
    if request.config.getoption("--write-golden"):
        path.write_text(text.replace(quickstart.__version__, "VERSION"))
    assert path.read_text().replace("VERSION", quickstart.__version__) == text


@pytest.mark.parametrize(
    ("user", "ids"),
    [
        ("1000:100", (1000, 100)),
        ("7", (7, 7)),
        ("riva:riva", (0, 0)),
        ("", (0, 0)),
        ("\u00b2", (0, 0)),
        ("5:\u00b2", (5, 5)),
    ],
)
def test_a_user_is_ids_or_root(user: str, ids: tuple[int, int]) -> None:
    """Only what the engine takes for a number is one."""
    assert numeric_user(user) == ids


def test_no_golden_file_is_left_over() -> None:
    """Each golden file belongs to a case."""
    assert {path.stem for path in GOLDEN.glob("*.txt")} == set(CASES)


# What riva_start.sh and riva_init.sh of 2.19 say to `docker run`, option by option. Written down
# from the scripts, not from this project's specs.
OFFICIAL_START = """
    --init --ipc=host -p=50051:50051 -p=50000:50000
    -e=RIVA_SERVER_HTTP_PORT=50000 -e=NMT_REMOTE_ASR_SERVICE=0.0.0.0:50051
    -e=NMT_REMOTE_TTS_SERVICE=0.0.0.0:50051 -e=LD_PRELOAD= -e=RIVA_API_KEY= -e=RIVA_API_NGC_ORG=
    -e=RIVA_EULA= --ulimit=memlock=-1 --ulimit=stack=67108864 --name=riva-speech
"""
OFFICIAL_X86 = "--gpus=device=0 -v=riva-model-repo:/data -p=8000 -p=8001 -p=8002"
OFFICIAL_L4T = """
    --gpus=device=0 -v=/home/me/models:/data -p=8000:8000 -p=8001:8001 -p=8002:8002 -p=8888:8888
    --device=/dev/bus/usb --device=/dev/snd
"""
OFFICIAL_TLS = "-v=/tls/a.crt:/ssl/server.crt -v=/tls/a.key:/ssl/server.key"
OFFICIAL_ARGUMENTS = """
    start-riva --riva-uri=0.0.0.0:50051 --asr_service=true --tts_service=true --nlp_service=true
"""
TLS_ARGUMENTS = "--use_ssl --ssl_server_cert=/ssl/server.crt --ssl_server_key=/ssl/server.key"
MUTUAL_ARGUMENTS = f"{TLS_ARGUMENTS} --ssl_root_cert=/ssl/root_server.crt --ssl_use_mutual_auth"


def as_ours(option: str) -> str:
    """Return an official option with the differences that docs/containers.md lists."""
    port = re.fullmatch(r"-p=(?:(\d+):)?(\d+)", option)
    if port:
        return f"-p=127.0.0.1:{port[1] or ''}:{port[2]}"
    return f"{option}:ro" if "/ssl/" in option else option


def options_of(spec: ContainerSpec) -> set[str]:
    """Return the options of a spec's `docker run` line, each with its value."""
    words = re.sub(r" (-[pev]) ", r" \1=", run_line(spec)).split(f" {spec.image} ")[0]
    return {o for o in shlex.split(words)[2:] if not o.startswith(("--label", "--detach"))}


@pytest.mark.parametrize(
    ("name", "options", "arguments", "differs"),
    [
        ("riva-x86", OFFICIAL_X86, "", {}),
        ("riva-x86-tls", f"{OFFICIAL_X86} {OFFICIAL_TLS}", TLS_ARGUMENTS, {}),
        (
            "riva-x86-mutual-tls",
            f"{OFFICIAL_X86} {OFFICIAL_TLS} -v=/tls/ca.crt:/ssl/root_server.crt",
            MUTUAL_ARGUMENTS,
            {},
        ),
        (
            "riva-l4t",
            OFFICIAL_L4T,
            "",
            # Jetson's runtime refuses --gpus, and reads the variable instead.
            {"--gpus=device=0": {"--runtime=nvidia", "-e=NVIDIA_VISIBLE_DEVICES=0"}},
        ),
    ],
)
def test_nvidias_server_gets_what_riva_start_gives(
    name: str, options: str, arguments: str, differs: dict[str, set[str]]
) -> None:
    """Each mount, variable, port, limit and argument of the official script, and nothing else."""
    official = set(f"{OFFICIAL_START} {options}".split())
    wanted = {as_ours(option) for option in official - set(differs)}.union(*differs.values())
    spec = server_of(CASES[name])
    assert options_of(spec) == wanted
    assert list(spec.command) == f"{OFFICIAL_ARGUMENTS} {arguments}".split()


def test_nvidias_deploy_gets_what_riva_init_gives() -> None:
    """--init, GPUs, the key and the name; the location is one level up, to leave what is served."""
    spec = deploy_of(CASES["riva-x86"])
    official = "--init --gpus=device=0 -v=riva-model-repo:/data -e=MODEL_DEPLOY_KEY"
    wanted = {*official.replace(":/data", ":/store").split(), "--name=riva-service-maker"}
    assert options_of(spec) == wanted
    assert "deploy_all_models /data/rmir /data/models" in spec.command[2]


@pytest.mark.parametrize("name", CASES)
def test_secrets_are_in_no_spec(name: str) -> None:
    """Neither the line nor any field of a spec holds a key's value."""
    keys = {
        "riva_api_key": "SECRET-ONE",
        "model_deploy_key": "SECRET-TWO",
        "ngc_api_key": "SECRET-3",
    }
    case = ({**CASES[name][0], **keys}, CASES[name][1])
    for spec in (server_of(case), deploy_of(case)):
        assert "SECRET" not in run_line(spec)
        assert "SECRET" not in repr(spec)


def test_everything_that_differs_changes_the_digest() -> None:
    """Two specs have one digest only when they, their image and their secrets are equal."""
    spec = server_of(CASES["open-cpu-folder"])
    others = [
        replace(spec, ports=()),
        replace(spec, mounts=(Mount("/elsewhere", "/data"),)),
        replace(spec, environment=(("A", "b"),)),
        replace(spec, command=(*spec.command, "--x")),
        replace(spec, gpu=Gpu("gpus", "all")),
    ]
    digests = {each.digest("image", {}) for each in [spec, *others]}
    digests |= {spec.digest("another image", {}), spec.digest("image", {"KEY": "1"})}
    assert len(digests) == len(others) + 3
    assert spec.digest("image", {}) == replace(spec).digest("image", {})


def test_no_port_of_http_is_said_to_be_none() -> None:
    """0 is passed on: without it the server would take the port that its environment names."""
    assert http_arguments(0, 0) == ("--http_port=0",)
    assert http_arguments(50000, 8002) == ("--http_port=50000", "--metrics_port=8002")


@pytest.mark.parametrize(
    ("text", "size"), [("", 0), ("1024", 1024), ("512m", 512 << 20), ("8G", 8 << 30)]
)
def test_memory_is_read_as_docker_does(text: str, size: int) -> None:
    """512m and 8g are powers of two."""
    assert plan.bytes_of(text) == size


@pytest.mark.parametrize(
    ("code", "told"),
    [
        (1, "the server ended with code 1"),
        (128, "the server ended with code 128"),
        (137, "the server was ended by SIGKILL"),
        (163, "the server was ended by signal 35"),
        (255, "the server ended with code 255"),
    ],
)
def test_every_exit_code_of_a_container_is_told(code: int, told: str) -> None:
    """Codes beyond 128 are signals where there is one of that number, else they are codes."""
    state = {"Status": "exited", "ExitCode": code}
    answer = {"Id": "1", "Name": "/speech", "State": state, "Image": "2", "Config": {}}
    assert told in ending(parse_container(answer), ["some last words"], "the server").cause


def facts_of(kind: str, **changed: object) -> Facts:
    """Return the facts in one of the kept answers to `docker info`."""
    return parse_facts({**json.loads((INFO / f"{kind}.json").read_text()), **changed})


@pytest.mark.parametrize(
    ("kind", "given", "variant", "way", "words"),
    [
        ("toolkit", {"image": "riva", **X86}, "", "gpus", "names the runtime nvidia"),
        ("toolkit-default", {"image": "riva", **X86}, "", "gpus", "names the runtime nvidia"),
        ("jetpack6", {"image": "riva", **TEGRA}, "", "runtime", "on Jetson"),
        ("cdi", {"image": "riva", **X86}, "", "cdi", "CDI"),
        ("cdi", {"image": "riva", **TEGRA}, "", "cdi", "CDI"),
        ("cdi-and-toolkit", {"image": "riva", **X86}, "", "gpus", "names the runtime nvidia"),
        ("plain", {"container_gpu_access": "gpus", "gpus_to_use": "all"}, "cuda", "gpus", "=gpus"),
        ("plain", {"gpus_to_use": "auto"}, "cuda", "none", "runs on the CPU"),
        ("rootless", {"gpus_to_use": "auto"}, "cuda", "none", "runs on the CPU"),
        ("cdi-of-another-vendor", {"gpus_to_use": "auto"}, "cuda", "none", "runs on the CPU"),
        ("toolkit", {"gpus_to_use": "auto"}, "cpu", "none", "the variant cpu"),
        ("toolkit", {"gpus_to_use": "auto"}, "servicemaker", "none", "the variant servicemaker"),
        ("toolkit", {"gpus_to_use": "none"}, "cuda", "none", "gpus_to_use=none"),
        ("toolkit", {"gpus_to_use": '"device=0,1"', **X86}, "cuda", "gpus", "runtime nvidia"),
    ],
)
def test_gpus_come_as_the_engine_offers_them(
    kind: str, given: dict[str, Any], variant: str, way: str, words: str
) -> None:
    """Device requests, the runtime of Jetson or CDI, with the reason."""
    chosen, why = gpu.choose(Settings(**given), lambda: facts_of(kind), variant)
    assert chosen.way == way
    assert words in why


def test_an_engine_that_lists_no_devices_of_cdi(tmp_path: Path) -> None:
    """Where an engine names folders of CDI only, nvidia's file in one of them decides."""
    settings = Settings(image="riva", riva_target_gpu_family="non-tegra")
    facts = facts_of("cdi-without-a-list", CDISpecDirs=[str(tmp_path)])
    with pytest.raises(UnsupportedError):
        gpu.choose(settings, lambda: facts, "")
    (tmp_path / "nvidia.yaml").touch()
    chosen, why = gpu.choose(settings, lambda: facts, "")
    assert chosen.cdi == ("nvidia.com/gpu=0",)
    assert str(tmp_path) in why


@pytest.mark.parametrize("kind", ["plain", "rootless", "cdi-of-another-vendor"])
def test_a_gpu_that_cannot_be_had_is_an_error(kind: str) -> None:
    """Asked for by name, a GPU is never silently left out; the fix is named."""
    settings = Settings(image="riva", riva_target_gpu_family="non-tegra")
    with pytest.raises(UnsupportedError, match="asks for a GPU") as caught:
        gpu.choose(settings, lambda: facts_of(kind), "")
    assert "nvidia-ctk runtime configure" in caught.value.hint


def test_an_engine_is_not_asked_in_vain() -> None:
    """Where no GPU is wanted, nothing is asked of the engine."""
    chosen, _ = gpu.choose(Settings(gpus_to_use="auto"), pytest.fail, "cpu")
    assert chosen.way == "none"


def test_devices_are_named_as_each_way_wants_them() -> None:
    """A list for --gpus is one quoted field; CDI has one name each."""
    both = Gpu("cdi", "device=0,GPU-1a")
    assert both.cdi == ("nvidia.com/gpu=0", "nvidia.com/gpu=GPU-1a")
    assert Gpu("cdi", "all").cdi == ("nvidia.com/gpu=all",)
    spec = replace(server_of(CASES["open-cuda"]), gpu=Gpu("gpus", "device=0,1"))
    assert '--gpus="device=0,1"' in shlex.split(run_line(spec))
