"""What a variable can be, a text or an array, and how a shell looks into it."""

from __future__ import annotations

from typing import TypeAlias

Value: TypeAlias = str | list[str] | dict[str, str]
# More items than this fit into no script that is read.
_BEYOND_ALL = 10**9


def items(value: Value | None) -> list[str]:
    """Return the texts of an array; a plain value is an array of one."""
    if value is None:
        return []
    if isinstance(value, dict):
        return list(value.values())
    return [value] if isinstance(value, str) else value


def first(value: Value | None) -> str:
    """Return what a variable stands for without a subscript."""
    return next(iter(items(value)), "") if not isinstance(value, dict) else value.get("0", "")


def position(key: str) -> int | None:
    """Return the position that a subscript names; None where it is no number."""
    if not (key.isascii() and key.isdigit()):
        return None
    # Python reads only a few thousand digits as a number.
    return int(key) if len(key) < len(str(_BEYOND_ALL)) else _BEYOND_ALL


def with_item(old: Value | None, key: str, item: str) -> Value:
    """Return an array with one more item."""
    if isinstance(old, dict):
        return {**old, key: item}
    texts = items(old)
    at = position(key) or 0
    if at > len(texts):
        return [*texts, item]
    return [*texts[:at], item, *texts[at + 1 :]]
