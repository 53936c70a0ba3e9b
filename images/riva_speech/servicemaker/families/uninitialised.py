"""Building a model without the random values that its weights begin with."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch.overrides import TorchFunctionMode

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_RANDOM = {"kaiming_uniform_", "normal_", "uniform_"}


class Uninitialised(TorchFunctionMode):
    """While it lasts, nothing is filled at random: what is loaded afterwards takes its place.

    Memory that nobody wrote to is no memory yet, so a model of any size costs nothing.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Call a function of torch, unless it fills a tensor with random values."""
        del types
        given = dict(kwargs or {})
        if getattr(func, "__name__", "") in _RANDOM:
            return args[0] if args else given["tensor"]
        return func(*args, **given)
