"""Streams by a cache-aware model on a GPU, whose caches stay there from one step to the next."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from riva_speech.asr.cache_aware import StreamingAcousticModel
from riva_speech.asr.gpu_arena import GpuArena

if TYPE_CHECKING:
    from riva_speech.asr.arena import Arena, Row
    from riva_speech.asr.streaming_config import CacheConfig
    from riva_speech.sessions import Session
    from riva_speech.sessions.onnx import OnnxSession


class GpuStreamingModel(StreamingAcousticModel):
    """Encodes streams as its base does; both of its sessions run on the GPU."""

    def _make_arena(self, caches: dict[str, Row], small: dict[str, Row]) -> Arena:
        return GpuArena(small, on_gpu=caches)

    @staticmethod
    def _given(cache: CacheConfig, rows: Any) -> dict[str, Any]:  # noqa: ANN401 - the arena's own
        return dict(zip(cache.inputs, rows if cache.is_split else [rows], strict=True))

    def _run(self, session: Session, given: dict[str, Any]) -> dict[str, Any]:
        kept = [cache.next_name for cache in self._config.caches]
        return cast("OnnxSession", session).run_on_gpu(given, kept)
