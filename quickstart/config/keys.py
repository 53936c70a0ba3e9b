"""How a setting is declared, and what is known of it besides its value."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, TypeVar, overload

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from quickstart.config.settings import Settings

T = TypeVar("T")

ENVIRONMENT_PREFIX = "RIVA_QS_"
MASK = "********"
UNSET: Any = type("Unset", (), {"__repr__": lambda _self: "UNSET"})()


@dataclass(frozen=True)
class Computed(Generic[T]):
    """A default that follows from this host or from keys declared before; `text` explains it."""

    text: str
    value: Callable[[Settings], T]


@dataclass(frozen=True)
class Default(Generic[T]):
    """What holds where nobody sets a key: for our image, and for NVIDIA's on a server or on L4T."""

    open: T | Computed[T]
    riva: T | Computed[T]
    tegra: T | Computed[T]

    def choose(self, settings: Settings) -> T | Computed[T]:
        """Return the default for these settings, of which the keys before this one hold."""
        if settings.image != "riva":
            return self.open
        return self.tegra if settings.riva_target_gpu_family == "tegra" else self.riva

    def reason(self, settings: Settings) -> str:
        """Return what the choice depended on; empty when there was none."""
        if isinstance(self.open, Computed) and self.open == self.riva:
            return self.open.text
        image = "" if self.open == self.riva == self.tegra else f"image={settings.image}"
        by_platform = settings.image == "riva" and self.riva != self.tegra
        return f"{image}, {settings.riva_target_gpu_family}" if by_platform else image


def per_image(open: T, riva: T | Computed[T], tegra: T | Computed[T] = UNSET) -> Default[T]:  # noqa: A002 - the value's name
    """Return a default that depends on `image`, and for NVIDIA's on the platform."""
    return Default(open, riva, riva if tegra is UNSET else tegra)


def everywhere(value: T | Computed[T]) -> Default[T]:
    """Return a default that holds everywhere."""
    return Default(value, value, value)


@dataclass(frozen=True)
class Key:
    """What is known of one key besides its type.

    Attributes:
        doc: Its meaning, in sentences.
        default: What holds where nobody sets it.
        name: Its name in the file, where that is not the field's.
        heading: The title of the group of keys that begins with it.
        choices: The only values it takes.
        check: Says what is wrong with a value, or nothing.
        resolve: Makes a text mean the same wherever it is read; it gets the folder of the text.
        variable: A second environment variable that sets it.
        secret: Whether its value must never show.
    """

    doc: str
    default: Default[Any]
    name: str = ""
    heading: str = ""
    choices: tuple[str, ...] = ()
    check: Callable[[Any], str] | None = None
    resolve: Callable[[str, Path], str] | None = None
    variable: str = ""
    secret: bool = False


@overload
def key(default: Default[T], doc: str, **details: Any) -> T: ...  # noqa: ANN401 - Key's fields
@overload
def key(default: Computed[T], doc: str, **details: Any) -> T: ...  # noqa: ANN401 - as above
@overload
def key(default: T, doc: str, **details: Any) -> T: ...  # noqa: ANN401 - as above
def key(default: Any, doc: str, **details: Any) -> Any:
    """Declare a setting: its default, its documentation, and what else Key can say of it."""
    chosen = default if isinstance(default, Default) else everywhere(default)
    declared = Key(doc, chosen, **details)
    return field(default=UNSET, repr=not declared.secret, metadata={"key": declared})


@dataclass(frozen=True)
class Setting:
    """One key as the file, the environment, documentation and error messages know it."""

    field: str
    name: str
    kind: str
    key: Key

    @property
    def variables(self) -> tuple[str, ...]:
        """The environment variables that set it, the weaker first."""
        own = f"{ENVIRONMENT_PREFIX}{self.name.upper()}"
        return (self.key.variable, own) if self.key.variable else (own,)

    def default(self, settings: Settings) -> Any:  # noqa: ANN401 - of the key's own type
        """Return the default for these settings, of which the keys before this one hold."""
        from pathlib import Path

        chosen = self.key.default.choose(settings)
        value = chosen.value(settings) if isinstance(chosen, Computed) else chosen
        return self.key.resolve(value, Path.cwd()) if self.key.resolve else value

    def shown(self, value: object) -> str:
        """Return a value as a configuration file spells it, masked when it is secret."""
        return MASK if self.key.secret and value else spelled(value)


def spelled(value: object) -> str:
    """Return a value as a configuration file spells it."""
    if isinstance(value, Computed):
        return value.text
    if isinstance(value, tuple):
        return " ".join(value)
    return str(value).lower() if isinstance(value, bool) else str(value)
