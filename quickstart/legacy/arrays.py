"""What a variable can be, a text or an array, and how a shell looks into it."""

from __future__ import annotations

from typing import TypeAlias

Value: TypeAlias = str | list[str] | dict[str, str]


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


def with_item(old: Value | None, key: str, item: str) -> Value:
    """Return an array with one more item."""
    if isinstance(old, dict):
        return {**old, key: item}
    texts = items(old)
    position = int(key) if key.isascii() and key.isdigit() else 0
    if position > len(texts):
        return [*texts, item]
    return [*texts[:position], item, *texts[position + 1 :]]
