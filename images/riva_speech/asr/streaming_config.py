"""The geometry of cache-aware streaming: chunks, and the caches that travel between them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Encoder steps that attention sees on the left and on the right.
AttentionContext: TypeAlias = tuple[int, int]


@dataclass(frozen=True)
class CacheConfig:
    """What a cache-aware graph remembers of one stream, and how it is handed on.

    The graph takes ``name``, float32 of the shape [batch, *shape], zeros when a stream begins, and
    gives ``next_name``. With no ``append_axis`` that is the whole cache of the next step. With one,
    an axis of ``shape``, it is only what this step adds along it: the caller puts that behind the
    cache's steps and drops as many of the oldest. A cache that ``is_split`` is taken in parts, one
    for each entry of the first axis of ``shape``: a graph would copy what it splits itself.
    """

    name: str
    shape: tuple[int, ...]
    append_axis: int | None = None
    is_split: bool = False

    @property
    def next_name(self) -> str:
        """The output that goes into the cache."""
        return f"{self.name}_next"

    @cached_property
    def inputs(self) -> dict[str, tuple[int, ...]]:
        """The inputs that take it, and their shapes without the batch."""
        if not self.is_split:
            return {self.name: self.shape}
        return {f"{self.name}_{part}": self.shape[1:] for part in range(self.shape[0])}

    def given(self, caches: NDArray[Any]) -> dict[str, NDArray[Any]]:
        """Return what these inputs are given of the caches of a batch, [batch, *shape]."""
        if not self.is_split:
            return {self.name: caches}
        return dict(zip(self.inputs, caches.swapaxes(0, 1), strict=True))


@dataclass(frozen=True)
class StreamingConfig:
    """The geometry of a cache-aware model, fixed when it was exported.

    ``att_context_size`` is the left and right attention context in encoder steps. A stream begins
    with ``first_frames`` feature frames; each later chunk has ``chunk_frames`` new ones behind
    ``history_frames`` old ones. Either gives ``chunk_steps`` encoder steps. Beside its ``caches``
    a graph takes ``cache_last_channel_len``, int64 of [batch]: how many of the newest steps of the
    attention's cache are a stream's own. It gives that of the next step too.
    """

    att_context_size: AttentionContext
    first_frames: int
    chunk_frames: int
    history_frames: int
    chunk_steps: int
    caches: tuple[CacheConfig, ...]


def read_streaming(values: Any) -> StreamingConfig:  # noqa: ANN401 - from YAML
    """Build from a manifest's mapping; what is malformed raises what reading it raises."""
    return StreamingConfig(
        att_context_size=read_context(values["att_context_size"]),
        first_frames=int(values["first_frames"]),
        chunk_frames=int(values["chunk_frames"]),
        history_frames=int(values["history_frames"]),
        chunk_steps=int(values["chunk_steps"]),
        caches=_caches(values),
    )


def read_context(values: Any) -> AttentionContext:  # noqa: ANN401 - from YAML
    """Read a left and a right context; the errors are as above."""
    left, right = values
    return int(left), int(right)


def _caches(values: Any) -> tuple[CacheConfig, ...]:  # noqa: ANN401 - from YAML
    if "caches" in values:
        return tuple(_cache(entry) for entry in values["caches"])
    # Archives of the first versions hold NeMo's own two caches.
    names = ("channel", "time")
    return tuple(
        _cache({"name": f"cache_last_{name}", "shape": values[f"{name}_cache"]}) for name in names
    )


def _cache(values: Any) -> CacheConfig:  # noqa: ANN401 - from YAML
    axis = values.get("append_axis")
    cache = CacheConfig(
        name=str(values["name"]),
        shape=tuple(int(size) for size in values["shape"]),
        append_axis=None if axis is None else int(axis),
        is_split=bool(values.get("is_split", False)),
    )
    if min(cache.shape) < 1 or not 0 <= (cache.append_axis or 0) < len(cache.shape):
        raise ValueError(f"the cache {cache.name} has no such shape or axis")
    return cache
