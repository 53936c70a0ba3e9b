"""YAML from files that nobody vouches for."""

from __future__ import annotations

import yaml


def load_mapping(text: str) -> dict[str, object]:
    """Read a YAML mapping of plain values.

    Tags that build objects are refused by the safe loader, and aliases here: a few nested ones
    expand to more memory than any machine has.

    Raises:
        ValueError: The text is not YAML, uses an alias, or is no mapping.
    """
    try:
        if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text, yaml.SafeLoader)):
            raise ValueError("it uses YAML aliases")
        value = yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError) as error:
        raise ValueError("it is not readable YAML") from error
    if not isinstance(value, dict):
        raise ValueError("it is not a YAML mapping")  # noqa: TRY004 - one error type for callers
    return value
