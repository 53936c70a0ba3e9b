"""The settings as text: the example file and the table of the documentation."""

from __future__ import annotations

from quickstart.config import SETTINGS, Setting

_HEADER = """\
# The configuration of riva-qs, with every key at its default.
# Copy this file to config.env, uncomment what you change, and run `riva-qs config validate`.
# It is data: nothing in it is executed. `riva-qs config show --origin` says which values hold."""


def example() -> str:
    """Return the text of `config.example.env`."""
    return "\n\n".join([_HEADER, *(_example(setting) for setting in SETTINGS.values())])


def table() -> str:
    """Return the settings as a Markdown table."""
    rows = [_row(setting) for setting in SETTINGS.values()]
    return "\n".join(
        ["| key | type | default | meaning | environment |", "|---|---|---|---|---|", *rows]
    )


def _spelled(setting: Setting) -> str:
    """Return a default as a configuration file spells it; a public default is no secret."""
    default = setting.default
    return str(default).lower() if isinstance(default, bool) else str(default)


def _example(setting: Setting) -> str:
    """Return one setting with its documentation as comment lines."""
    doc = "\n".join(f"# {line}" for line in setting.key.doc.splitlines())
    return f"{doc}\n#{setting.name}={_spelled(setting)}"


def _row(setting: Setting) -> str:
    """Return one setting as a row of the table."""
    kind = " \\| ".join(setting.key.choices) or {"bool": "true \\| false"}.get(
        setting.kind, setting.kind
    )
    variables = ", ".join(f"`{name}`" for name in reversed(setting.variables))
    doc = setting.key.doc.replace("\n", " ")
    default = f"`{_spelled(setting)}`" if _spelled(setting) else ""
    return f"| `{setting.name}` | {kind} | {default} | {doc} | {variables} |"
