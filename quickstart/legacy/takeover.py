"""The variables of an official `config.sh` as a config.env, and what could not be taken over."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from quickstart import catalog
from quickstart.catalog import official
from quickstart.config import MASK, SETTINGS, Setting, Settings, is_path
from quickstart.config.keys import spelled
from quickstart.config.rules import contradictions
from quickstart.config.values import nearest, parse
from quickstart.errors import RivaQsError, UsageError
from quickstart.legacy import evaluation, parser
from quickstart.legacy.expansion import TAINT
from quickstart.legacy.tokens import ScriptError

if TYPE_CHECKING:
    from pathlib import Path

    from quickstart.legacy.arrays import Value
    from quickstart.legacy.evaluation import Outcome

# The official files have up to 30 KB.
_LARGEST = 1 << 18
_ALWAYS = {"image", "riva_target_gpu_family"}
_OURS = {"backend", "image", "riva_speech_api_host", "readiness_audio", "riva_timeout_sec"}
_RENAMED = {
    "language_code": "asr_language_code",
    "riva_arm64_legacy_platform": "riva_tegra_platform",
    "RIVA_TIMEOUT_SEC": "riva_timeout_sec",
    "NGC_CLI_API_KEY": "NGC_API_KEY",
}
_FAMILIES = {"amd64": "non-tegra", "arm64": "tegra"}
_GONE = {
    "image_init_speech": "one image deploys and serves since 2.18; an older one needs its own"
    " servicemaker image, which riva-qs does not run",
    "image_client": "riva-qs transcribe needs no client image",
    "riva_vision_api_port": "the vision services are gone since 2.0",
    "riva_rmir_loc": "archives are in rmir/ below riva_model_loc",
}
_SAFE = re.compile(r"([\w.,:;/@%+=~^-]+([ ][\w.,:;/@%+=~^-]+|#[\w.=-]+)*)?", re.ASCII)
_SILENT = {"asr_models_languages_map", "tts_models_languages_map", "asr_acoustic_model_variant"}
_HEADER = """\
# Taken over from {name}{version} by riva-qs config import.
# Keys at their default are left out; `riva-qs -c FILE config show --origin` shows all of them."""
_HOST = """\
# The official scripts let every machine in; riva-qs only this one, unless you uncomment:
#riva_speech_api_host=0.0.0.0"""


@dataclass(frozen=True)
class Imported:
    """What came of a `config.sh`.

    Attributes:
        text: The config.env.
        version: The Riva version that it was written for, empty where it does not say.
        values: The keys that were written, secrets masked.
        notes: What could not be taken over, each with the reason.
        secret: Whether the text holds a secret.
    """

    text: str
    version: str
    values: dict[str, str]
    notes: tuple[str, ...]
    secret: bool


def import_config(path: Path) -> Imported:
    """Return an official `config.sh` of any 2.x version as a config.env.

    Args:
        path: The file; it is read as data and never executed.

    Raises:
        UsageError: It cannot be read, is no shell script, or sets nothing that Riva knows.
    """
    script = _read(path)
    try:
        outcome = evaluation.evaluate(parser.parse(script), path.absolute().parent)
    except ScriptError as error:
        message = f"{path}:{error.line}: this is no config.sh that can be read: {error}"
        raise UsageError(message, "compare it with the file that NVIDIA ships") from error
    if not set(outcome.values) & {"service_enabled_asr", "riva_model_loc", "image_speech_api"}:
        hint = "name the config.sh of a riva_quickstart folder"
        raise UsageError(f"{path} sets nothing that a Riva config.sh does", hint)
    used = set(re.findall(r"\$\{?#?([A-Za-z_]\w*)", script))
    return _Takeover(outcome, used, path.absolute().parent).imported(path.name)


def _read(path: Path) -> str:
    """Return the text of a script."""
    try:
        with path.open("rb") as stream:
            data = stream.read(_LARGEST + 1)
    except OSError as error:
        message = f"cannot read {path}: {error.strerror}"
        raise UsageError(message, "name the config.sh of a riva_quickstart folder") from error
    if len(data) > _LARGEST:
        raise UsageError(f"{path} is larger than 256 KiB; a config.sh has some 20", "is it one?")
    if b"\0" in data:
        raise UsageError(f"{path} is no text: it holds NUL bytes", "is it a config.sh?")
    text = data.decode("utf-8-sig", errors="replace")
    return text.replace("\r\n", "\n").replace("\r", "\n")


@dataclass
class _Takeover:
    """Turns variables into keys, in the order in which keys are declared."""

    outcome: Outcome
    used: set[str]
    folder: Path
    given: dict[str, Any] = field(default_factory=lambda: {"image": "riva"})
    notes: list[str] = field(default_factory=list)

    def imported(self, name: str) -> Imported:
        """Return the result."""
        self.notes += self.outcome.notes
        texts = self._texts()
        for setting in SETTINGS.values():
            if setting.name in texts and not setting.name.startswith("models_"):
                self._take(setting, texts[setting.name])
        version = texts.get("riva_ngc_image_version", "")
        self._languages()
        for service in catalog.SERVICES:
            self._models(service)
        self._leftovers()
        self._judge()
        return self._written(name, version)

    def _texts(self) -> dict[str, str]:
        """Return the value of every key that the script sets, as a config.env spells it."""
        values = self.outcome.values
        texts = {f"service_enabled_{service}": "false" for service in catalog.SERVICES}
        for name, value in values.items():
            key = _RENAMED.get(name, name)
            if key in SETTINGS and (key not in _OURS or name in _RENAMED):
                texts[key] = self._text(name, SETTINGS[key], value)
        family = texts.get("riva_target_gpu_family", "non-tegra")
        texts["riva_target_gpu_family"] = _FAMILIES.get(family, family)
        variant = " ".join(_items(values.get("asr_acoustic_model_variant")))
        if variant and "asr_acoustic_model" in texts:
            texts["asr_acoustic_model"] += f"_{variant}"
        return {key: text for key, text in texts.items() if text or key != "riva_tegra_platform"}

    def _text(self, name: str, setting: Setting, value: Value) -> str:
        """Return the value of a variable as a config.env spells it."""
        items = _items(value)
        if setting.kind.startswith("tuple"):
            return " ".join(items)
        if len(items) > 1:
            self._note(name, f"only the first of {len(items)} values counts, as in Riva's scripts")
        return items[0] if items else ""

    def _take(self, setting: Setting, text: str) -> None:
        """Take over one key, unless it is at its default or cannot be."""
        if TAINT in text:
            self._note(setting.name, "only a shell knows its value; write it yourself")
            return
        if "\ufffd" in text:
            self._note(setting.name, "its value is not UTF-8; write it yourself")
            return
        value, wrong = parse(setting, text, self.folder)
        if wrong:
            self._note(setting.name, wrong)
            return
        # What a default follows from comes before it, so the keys so far are enough.
        default = getattr(Settings(**self.given), setting.field)
        is_folder = setting.key.resolve is not None and is_path(text)
        if value != default or setting.name in _ALWAYS or is_folder:
            self.given[setting.field] = value

    def _note(self, name: str, text: str) -> None:
        """Remember what was not taken over."""
        line = self.outcome.lines.get(name)
        self.notes.append(f"line {line}: {name}: {text}" if line else f"{name}: {text}")

    def _languages(self) -> None:
        """Call the language of a multilingual model what later releases call it."""
        settings = Settings(**self.given)
        offered = official.release(settings.riva_ngc_model_version).asr
        wanted = offered.get(settings.asr_acoustic_model)
        if wanted == ("multi",) and settings.asr_language_code != wanted:
            before = " ".join(settings.asr_language_code)
            self.given["asr_language_code"] = wanted
            reason = f"{settings.asr_acoustic_model} has one archive for all languages"
            self._note("asr_language_code", f"{before} became multi: {reason}")

    def _models(self, service: str) -> None:
        """Take over the models of a service where they do not follow from the other keys."""
        settings = Settings(**self.given)
        if not getattr(settings, f"service_enabled_{service}"):
            return
        key = f"models_{service}"
        listed = [item.replace("//", "/") for item in _items(self.outcome.values.get(key))]
        problems = official.problems(settings, service)
        computed = [found.reference for found in official.named(settings, service)]
        if not listed or (listed == computed and not problems):
            if not listed and key in self.outcome.values and computed:
                self._note(key, f"it is empty; riva-qs takes {' '.join(computed)}")
            return
        text = " ".join(dict.fromkeys(listed))
        self._take(SETTINGS[key], text)
        if key in self.given and service == "asr":
            self._without_model(settings)

    def _without_model(self, settings: Settings) -> None:
        """Leave out a model that no longer has a name, now that its archives are listed."""
        model = settings.asr_acoustic_model
        if model not in official.release(settings.riva_ngc_model_version).asr:
            self.given.pop("asr_acoustic_model", None)
            self._note("asr_acoustic_model", f"{model} is gone; models_asr lists its archives")

    def _leftovers(self) -> None:
        """Note the variables that mean nothing to riva-qs, and that the script itself ignores."""
        known = set(SETTINGS) - _OURS | set(_RENAMED) | _SILENT
        for name, value in self.outcome.values.items():
            if name in _GONE and any(_items(value)):
                self._note(name, _GONE[name])
            elif name not in known | self.used | set(_GONE) | {"team"}:
                self._note(name, f"riva-qs has no such setting{nearest(name, SETTINGS)}")

    def _judge(self) -> None:
        """Note what is still wrong with the result as a whole."""
        settings = Settings(**self.given)
        self.notes += [f"the result does not hold yet: {text}" for text in contradictions(settings)]
        try:
            catalog.wanted(settings)
        except RivaQsError as error:
            problems = getattr(error, "problems", (error.message,))
            self.notes += [f"the result does not hold yet: {text}" for text in problems]

    def _written(self, name: str, version: str) -> Imported:
        """Return what was taken over as text."""
        taken = [s for s in SETTINGS.values() if s.field in self.given]
        lines = [f"{s.name}={_quoted(spelled(self.given[s.field]))}" for s in taken]
        said = f" (Riva {version})" if re.fullmatch(r"[\w.-]+", version) else ""
        printable = "".join(character for character in name if character.isprintable())
        head = _HEADER.format(name=printable, version=said)
        values = {s.name: s.shown(self.given[s.field]) for s in taken}
        text = "\n".join([head, "", *lines, "", _HOST])
        return Imported(text, version, values, tuple(self.notes), MASK in values.values())


def _items(value: Value | None) -> list[str]:
    """Return the texts of a variable; an associative array has none that a key could take."""
    if value is None or isinstance(value, dict):
        return []
    return [value] if isinstance(value, str) else value


def _quoted(text: str) -> str:
    """Return a value so that a config.env means exactly it."""
    if _SAFE.fullmatch(text):
        return text
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"
