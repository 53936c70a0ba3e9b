"""What an engine's refusals mean: a member of our error tree, with the engine's own words in it."""

from __future__ import annotations

import re
from http.client import IncompleteRead
from typing import TYPE_CHECKING

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
    from collections.abc import Iterator

# A disk that is busy keeps an engine from answers for longer than one would think; its own clients
# wait for ever. In seconds.
PATIENCE = 30


def unreachable(address: str, error: Exception) -> RivaQsError:
    """Return the error for an engine that cannot be talked to, from the cause underneath."""
    causes = list(_causes(error))
    tried = f"the Docker Engine at {address}"
    if any(isinstance(cause, PermissionError) for cause in causes):
        return NotAuthorisedError(
            f"no permission to talk to {tried}",
            "sudo usermod -aG docker $USER, then log in again (groups are read at login)",
        )
    if is_late(error):
        return NotReadyError(
            f"{tried} accepts connections and does not answer within {PATIENCE} s",
            "look at `systemctl status docker` and `journalctl -u docker`; restart it",
        )
    if any(isinstance(c, (FileNotFoundError, ConnectionRefusedError)) for c in causes):
        return UnsupportedError(
            f"there is no Docker Engine at {address}",
            "install or start Docker, or set DOCKER_HOST; backend=embedded needs none",
        )
    if any(isinstance(c, (ConnectionError, IncompleteRead)) for c in causes):
        return NotReadyError(
            f"{tried} broke the connection off",
            "look at `systemctl status docker` and `journalctl -u docker`, then try again",
        )
    return UnsupportedError(f"cannot talk to {tried}: {error}", "check DOCKER_HOST")


def is_late(error: BaseException) -> bool:
    """Whether an error says that no answer came in time."""
    return any(isinstance(cause, TimeoutError) for cause in _causes(error))


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
        "executable file not found",
        ArtifactMissingError,
        "image_speech_api must name an image with this program: `riva-qs image build` makes one",
    ),
    ("minimum memory limit", UsageError, "raise container_memory"),
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


def from_words(message: str, words: str, what: str) -> RivaQsError:
    """Return our error for what an engine says."""
    for pattern, kind, hint in _MEANINGS:
        if re.search(pattern, words.lower()):
            return kind(f"{message}: {words}", hint)
    return RivaQsError(f"{message}: {words}", "the engine's own log may say more" if what else "")
