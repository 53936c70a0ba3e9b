"""The settings as text: the example file and the table of the documentation."""

from __future__ import annotations

from typing import Any

from quickstart.catalog import official
from quickstart.config import SETTINGS, Setting, Settings
from quickstart.config.keys import Computed, spelled

_HEADER = """\
# The configuration of riva-qs, with every key at its default.
# Copy this file to config.env, uncomment what you change, and run `riva-qs config validate`.
# It is data: nothing in it is executed. `riva-qs config show --origin` says which values hold."""
_RULE = "# " + "-" * 78


def example() -> str:
    """Return the text of `config.example.env`."""
    # On every host the same: what is detected is written as it is for most.
    settings = Settings(riva_target_gpu_family="non-tegra")
    return "\n\n".join([_HEADER, *(_example(s, settings) for s in SETTINGS.values())])


def table() -> str:
    """Return the settings as a Markdown table."""
    rows = [_row(setting) for setting in SETTINGS.values()]
    return "\n".join(
        ["| key | type | default | meaning | environment |", "|---|---|---|---|---|", *rows]
    )


def models_table() -> str:
    """Return NVIDIA's models of the newest known release as a Markdown table."""
    offered = official.release("")
    rows = [
        f"| `{key}` | `{model}` | {' '.join(codes)} |"
        for key, models in (("asr_acoustic_model", offered.asr), ("tts_model", offered.tts))
        for model, codes in models.items()
    ]
    return "\n".join(["| key | model | languages |", "|---|---|---|", *rows])


def defaults(setting: Setting, quote: str = "") -> str:
    """Return the default of a key in words, for our image, for NVIDIA's and for that on L4T."""
    default = setting.key.default
    texts = [_default_text(value, quote) for value in (default.open, default.riva, default.tegra)]
    places = ("", "image=riva: ", "image=riva on L4T: ")
    parts = [
        f"{place}{text}"
        for i, (place, text) in enumerate(zip(places, texts, strict=True))
        if i == 0 or text != texts[i - 1]
    ]
    return "; ".join(parts) if len(parts) > 1 else texts[0]


def schema() -> dict[str, Any]:
    """Return a JSON Schema of the values of all keys, as `config show --json` gives them."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "The configuration of riva-qs",
        "type": "object",
        "additionalProperties": False,
        "properties": {setting.name: _property(setting) for setting in SETTINGS.values()},
    }


def _property(setting: Setting) -> dict[str, Any]:
    """Return the schema of one key."""
    types = {"bool": "boolean", "int": "integer", "str": "string"}
    described: dict[str, Any] = {
        "description": setting.key.doc.replace("\n", " "),
        "type": types.get(setting.kind, "array"),
    }
    if described["type"] == "array":
        described["items"] = {"type": "string"}
    if setting.key.choices:
        described["enum"] = list(setting.key.choices)
    default = setting.key.default
    if default.open == default.riva == default.tegra and not isinstance(default.open, Computed):
        value = default.open
        described["default"] = list(value) if isinstance(value, tuple) else value
    else:
        described["description"] += f" Default: {defaults(setting)}."
    return {**described, "writeOnly": True} if setting.key.secret else described


def _default_text(value: object, quote: str) -> str:
    """Return one default, or the words that explain it."""
    text = spelled(value)
    if isinstance(value, Computed):
        return text
    return f"{quote}{text}{quote}" if text else "empty"


def _example(setting: Setting, settings: Settings) -> str:
    """Return one setting with its documentation as comment lines."""
    lines = setting.key.doc.splitlines()
    if setting.key.default.reason(settings):
        lines.append(f"Default: {defaults(setting)}.")
    heading = f"{_RULE}\n# {setting.key.heading}\n\n" if setting.key.heading else ""
    doc = "\n".join(f"# {line}" for line in lines)
    return f"{heading}{doc}\n#{setting.name}={spelled(getattr(settings, setting.field))}"


def _row(setting: Setting) -> str:
    """Return one setting as a row of the table."""
    kinds = {"bool": "true \\| false", "tuple[str, ...]": "list"}
    kind = " \\| ".join(c or "empty" for c in setting.key.choices) or kinds.get(
        setting.kind, setting.kind
    )
    variables = ", ".join(f"`{name}`" for name in reversed(setting.variables))
    doc = setting.key.doc.replace("\n", " ")
    return f"| `{setting.name}` | {kind} | {defaults(setting, '`')} | {doc} | {variables} |"
