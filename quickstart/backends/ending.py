"""Why a program ended, from its exit code and what it said."""

from __future__ import annotations

import re
import signal
from typing import TYPE_CHECKING

from quickstart.backends.base import Exit

if TYPE_CHECKING:
    from collections.abc import Sequence

_SIGNALS = {number.value: number.name for number in signal.Signals}
_STATEMENT = re.compile(r"(?:\S*\d\S*Z )?(?:[A-Z]+ )?(error|hint): (.+)", re.IGNORECASE)


def explain(code: int | None, lines: Sequence[str], who: str) -> Exit:
    """Return why a program ended: its first `error:` line, else what is known."""
    said = [match for match in map(_STATEMENT.fullmatch, lines) if match]
    error = next((i for i, match in enumerate(said) if match[1].lower() == "error"), None)
    if error is not None:
        hints = (match[2] for match in said[error:] if match[1].lower() == "hint")
        return Exit(code, said[error][2], next(hints, ""))
    last = next((line for line in reversed(lines) if line.strip()), "")
    saying = f'; it said last: "{last.strip()}"' if last else "; it said nothing"
    if code is not None and code < 0:
        name = _SIGNALS.get(-code, f"signal {-code}")
        hint = "the kernel does that when memory runs out: see dmesg" if name == "SIGKILL" else ""
        return Exit(code, f"{who} was ended by {name}{saying}", hint)
    how = f"{who} ended with code {code}" if code is not None else f"{who} ended"
    return Exit(code, f"{how}{saying}")
