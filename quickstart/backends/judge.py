"""What a deploy by NVIDIA's image really made: judged by files and log, not by its exit status.

Those tools leave no report, and can end with success when a model is missing. So the container
lists the files of the repository; the log says which directories each archive was to become.
"""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from quickstart.backends.base import DeployReport, Model
from quickstart.errors import RivaQsError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

# What riva-deploy says of each directory; that of the pipeline as a whole comes last, as "self".
_EXTRACTED = re.compile(r"Extract_binaries for (\S+) -> \S*?/?([^/\s]+)/1\s*$")
_SKIPPED = re.compile(r"\s(?:\S*/)?([^/\s]+) already exists, skipping deployment")
_SETTING = re.compile(r'\./?([^/]+)/config\.pbtxt:\s*(\w+)\s*:\s*"([^"]*)"')
_WEIGHTS = {
    "tensorrt_plan": "model.plan",
    "tensorrt": "model.plan",
    "onnxruntime_onnx": "model.onnx",
    "onnxruntime": "model.onnx",
}
_PIPELINES = re.compile(
    r"(?!riva-(trt|onnx|nemo)-).*(-asr-(streaming|offline)|ensemble|punctuation)"
)
_LANGUAGE = re.compile(r"\b[a-z]{2}-[A-Z]{2}\b")


@dataclass
class _Directory:
    """One directory of a repository: its files, and what its config.pbtxt says."""

    files: set[str] = field(default_factory=set)
    settings: dict[str, str] = field(default_factory=dict)

    def lacks(self) -> str:
        """Return what the directory lacks to be a model; empty for nothing."""
        if "config.pbtxt" not in self.files:
            return "config.pbtxt"
        engine = self.settings.get("backend") or self.settings.get("platform", "")
        if engine in _WEIGHTS:
            weights = self.settings.get("default_model_filename") or _WEIGHTS[engine]
            return "" if f"1/{weights}" in self.files else f"1/{weights}"
        inside = any(file.startswith("1/") for file in self.files)
        return "" if inside or engine == "ensemble" else "1/"


def judge(
    listing: str, log: Sequence[str], rmirs: Sequence[str], engine: dict[str, str]
) -> DeployReport:
    """Return what was deployed, when every archive became complete models.

    Args:
        listing: The paths of all files with something in them, and lines of config.pbtxt files.
        log: What the deploy said.
        rmirs: The names of the archives, in the order of their deploy.
        engine: What deployed them.

    Raises:
        RivaQsError: A model is incomplete, or an archive became none.
    """
    directories = _directories(listing.splitlines())
    damaged = [f"{name} has no {d.lacks()}" for name, d in directories.items() if d.lacks()]
    groups = _by_archive(log)
    named = {directory for group in groups for directory in group}
    damaged += [f"{name} is not there" for name in sorted(named - set(directories))]
    if damaged:
        raise _incomplete("; ".join(damaged))
    if groups and len(groups) < len(rmirs):
        raise _incomplete(f"of {', '.join(rmirs)} only {len(groups)} became a model")
    owners = dict(zip(rmirs, groups, strict=False)) or {rmirs[0]: tuple(directories)}
    models = [m for rmir, group in owners.items() for m in _models(rmir, group)]
    if not models:
        raise _incomplete("there is no model")
    return DeployReport(engine, tuple(models))


def _incomplete(what: str) -> RivaQsError:
    """Return the error for a deploy that is not what it says."""
    message = f"the deploy did not make what its archives hold: {what}"
    return RivaQsError(message, "the first error in its log above says why")


def _directories(lines: Iterable[str]) -> dict[str, _Directory]:
    """Return the directories of a repository by name, from its listing."""
    found: defaultdict[str, _Directory] = defaultdict(_Directory)
    for line in lines:
        setting = _SETTING.match(line if line.startswith(".") else f"./{line}")
        if setting:
            found[setting[1]].settings.setdefault(setting[2], setting[3])
            continue
        parts = PurePosixPath(line).parts
        if len(parts) > 1:
            found[parts[0]].files.add("/".join(parts[1:]))
    return dict(found)


def _by_archive(log: Iterable[str]) -> list[tuple[str, ...]]:
    """Return the directories that the log names, those of one archive together."""
    groups: list[tuple[str, ...]] = []
    open_group: list[str] = []
    for line in log:
        extracted, skipped = _EXTRACTED.search(line), _SKIPPED.search(line)
        if skipped:
            open_group.append(skipped[1])
        elif extracted:
            open_group.append(extracted[2])
            if extracted[1] == "self":
                groups.append(tuple(open_group))
                open_group = []
    return groups


def _models(rmir: str, directories: Sequence[str]) -> list[Model]:
    """Return the models that the directories of one archive make up."""
    tops = [name for name in directories if _PIPELINES.match(name)] or list(directories[-1:])
    return [_model(rmir, top, tuple(directories)) for top in tops]


def _model(rmir: str, name: str, directories: tuple[str, ...]) -> Model:
    """Return one model, told from the names that NVIDIA gives them."""
    service = "asr" if "asr" in name else "nlp" if "punctuation" in name else "tts"
    kind = "offline" if "offline" in name else "online"
    language = _LANGUAGE.search(name)
    return Model(name, service, kind, language[0] if language else "", rmir, directories)
