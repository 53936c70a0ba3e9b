"""How settings differ from the defaults, or from other settings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from quickstart.config.keys import MASK, spelled
from quickstart.config.settings import SETTINGS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from quickstart.config.layers import Loaded


@dataclass(frozen=True)
class Difference:
    """One key with its value, the value it is compared with, and where its own came from."""

    name: str
    value: Any
    other: Any
    origin: str

    def lines(self) -> Iterator[str]:
        """Yield the two values as `diff` marks them."""
        yield f"-{self.name}={spelled(self.other)}"
        yield f"+{self.name}={spelled(self.value)}  # {self.origin}"


def differences(loaded: Loaded, other: Loaded | None = None) -> list[Difference]:
    """Return every key whose value differs from its default, or from its value in `other`.

    A default is the one that holds for these settings: with image=riva, NVIDIA's.
    """
    found = []
    for name, setting in SETTINGS.items():
        value = loaded.value(name)
        base = other.value(name) if other else setting.default(loaded.settings)
        if value != base:
            shown = (MASK, MASK) if setting.key.secret else (value, base)
            found.append(Difference(name, *shown, loaded.origins[name]))
    return found
