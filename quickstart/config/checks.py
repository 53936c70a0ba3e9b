"""What can be wrong with one value: each check returns a sentence, or nothing when all is well."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

_PORTS = range(1, 1 << 16)
_MESSAGE_SIZES = range(1, 1 << 11)  # MiB: gRPC counts bytes in 31 bits
_IMAGE = re.compile(r"[A-Za-z0-9][\w.:/-]*(@sha256:[0-9a-f]{64})?", re.ASCII)
_GPU = r"(\d+|(GPU|MIG)-[\w/-]+)"
_GPUS = re.compile(rf"auto|none|all|[1-9]\d*|\"?device={_GPU}(,{_GPU})*\"?", re.ASCII)


def is_path(location: str) -> bool:
    """Say whether a model location is a path; else it is a plain name."""
    return "/" in location or location.startswith("~") or location in {".", ".."}


def absolute(text: str, base: Path) -> str:
    """Return the path that `text` means when it was written in `base`."""
    return os.path.normpath(base / Path(text).expanduser()) if text else ""


def location(text: str, base: Path) -> str:
    """Return a model location with its path made absolute; a plain name stays one."""
    return absolute(text, base) if is_path(text) else text


def wrong_path(value: str) -> str:
    """Say what is wrong with a path."""
    unknown = value.startswith("~") and os.path.expanduser(value) == value  # noqa: PTH111 - no error
    return f'"{value}" names a home folder that does not exist' if unknown else ""


def wrong_location(value: str) -> str:
    """Say what is wrong with a model location."""
    if is_path(value):
        return wrong_path(value)
    if re.fullmatch(r"[A-Za-z0-9][\w.-]*", value):
        return ""
    return f'"{value}" is neither a path (it has no /) nor a plain name'


def wrong_port(value: int) -> str:
    """Say what is wrong with a TCP port."""
    return "" if value in _PORTS else f"{value} is not a port: 1 to {_PORTS[-1]}"


def wrong_optional_port(value: int) -> str:
    """Say what is wrong with a TCP port that may be 0, for none."""
    wrong = wrong_port(value) if value else ""
    return wrong and f"{wrong}, or 0 for none"


def wrong_message_size(value: int) -> str:
    """Say what is wrong with a limit of messages in MiB."""
    if value in _MESSAGE_SIZES:
        return ""
    return f"{value} is no limit for messages: 1 to {_MESSAGE_SIZES[-1]} MiB"


def wrong_amount(value: int) -> str:
    """Say what is wrong with a number of things of which there is at least one."""
    return "" if value > 0 else f"{value} is too few: at least 1"


def wrong_seconds(value: int) -> str:
    """Say what is wrong with a time limit."""
    return "" if value > 0 else f"{value} is no time to wait: at least 1"


def wrong_count(value: int) -> str:
    """Say what is wrong with a number of things."""
    return "" if value >= 0 else f"{value} is less than none"


def wrong_language(value: str) -> str:
    """Say what is wrong with a language code."""
    if re.fullmatch(r"[A-Za-z]{2,3}(-[A-Za-z0-9]{2,8})*|multi", value):
        return ""
    return f'"{value}" is not a language code such as en-US'


def wrong_languages(value: tuple[str, ...]) -> str:
    """Say what is wrong with a list of language codes."""
    if not value:
        return "at least one language code is needed, such as en-US"
    return first_wrong(wrong_language, value)


def first_wrong(check: Callable[[str], str], values: tuple[str, ...]) -> str:
    """Return what `check` says of the first value that it finds fault with."""
    return next(filter(None, map(check, values)), "")


def wrong_word(value: str) -> str:
    """Say what is wrong with a value that must be one word."""
    return "" if re.fullmatch(r"\S+", value) else f'"{value}" is not one word'


def wrong_name(value: str) -> str:
    """Say what is wrong with a name of an organisation, a container or a version."""
    if re.fullmatch(r"[A-Za-z0-9][\w.-]*", value, re.ASCII):
        return ""
    return f'"{value}" is not a plain name: letters, digits, ".", "_" and "-"'


def wrong_optional_name(value: str) -> str:
    """Say what is wrong with a name that may be left empty."""
    return wrong_name(value) if value else ""


def wrong_target(value: str) -> str:
    """Say what is wrong with an organisation, or an organisation and a team."""
    return first_wrong(wrong_name, tuple(value.split("/"))) if value else '"" names nobody'


def wrong_image(value: str) -> str:
    """Say what is wrong with the reference of a container image."""
    if not value or _IMAGE.fullmatch(value):
        return ""
    return f'"{value}" is not an image such as registry/name:tag'


def wrong_endpoint(value: str) -> str:
    """Say what is wrong with the address of another service."""
    host, _, port = value.rpartition(":")
    if host and re.fullmatch(r"[0-9]{1,5}", port) and not wrong_port(int(port)):
        return wrong_word(host)
    return f'"{value}" is not host:port'


def wrong_gpus(value: str) -> str:
    """Say what is wrong with a choice of GPUs."""
    if _GPUS.fullmatch(value):
        return ""
    return f'"{value}" is none of auto, none, all, a number of GPUs, device=0 or device=0,1'


def wrong_memory(value: str) -> str:
    """Say what is wrong with a limit of memory."""
    if re.fullmatch(r"([1-9]\d*[bkmgBKMG]?)?", value):
        return ""
    return f'"{value}" is no amount of memory such as 512m or 8g'


def wrong_references(value: tuple[str, ...]) -> str:
    """Say what is wrong with a list of models."""
    from quickstart.catalog.locators import wrong_reference

    return first_wrong(wrong_reference, value)
