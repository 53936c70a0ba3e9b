"""What is told of each request: one line in the log, and its share of the metrics."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from riva_speech.server.metrics import Metrics

_log = logging.getLogger("riva_speech.server")


@dataclass
class Call:
    """One request in progress.

    Attributes:
        method: The name of the RPC.
        model: The model that answers, once it is chosen.
        audio_seconds: How much audio was heard.
        chunks: How many pieces of audio were answered.
        slowest_chunk: The longest time that one of them took, in seconds.
        status: The gRPC status that it ends with.
        finals: The final transcripts that were sent.
    """

    method: str
    model: str = "-"
    audio_seconds: float = 0.0
    chunks: int = 0
    slowest_chunk: float = 0.0
    status: str = "OK"
    finals: list[str] = field(default_factory=list)
    began: float = field(default_factory=time.monotonic)


class Journal:
    """Counts requests, and writes the line of each into the log when it ends."""

    def __init__(self, metrics: Metrics, *, transcripts: bool = False) -> None:
        """Write transcripts into the log only where they are asked for."""
        self.metrics = metrics
        self.keeps_transcripts = transcripts

    def begin(self, method: str) -> Call:
        """Count a request that was admitted."""
        self.metrics.began(method)
        return Call(method)

    def refuse(self, method: str, limit: int) -> None:
        """Count and log a request for which there was no room."""
        self.metrics.refused(method)
        fields = {"method": method, "status": "RESOURCE_EXHAUSTED", "limit": limit}
        _log.warning("%s", _spelt(fields), extra={"fields": fields})

    def chunk(self, call: Call, seconds: float) -> None:
        """Time the answer to a piece of audio."""
        call.chunks += 1
        call.slowest_chunk = max(call.slowest_chunk, seconds)
        self.metrics.chunk(call.model, seconds)

    def heard(self, call: Call, final: str) -> None:
        """Keep a final transcript for the log."""
        call.finals.append(final)

    def end(self, call: Call) -> None:
        """Count a request that is over, and log it."""
        took = time.monotonic() - call.began
        self.metrics.ended(
            call.method, call.model, call.status, audio=call.audio_seconds, took=took
        )
        fields: dict[str, object] = {
            "method": call.method,
            "model": call.model,
            "audio": round(call.audio_seconds, 3),
            "took": round(took, 3),
            "status": call.status,
        }
        if call.chunks:
            fields |= {"chunks": call.chunks, "slowest_chunk": round(call.slowest_chunk, 3)}
        if self.keeps_transcripts:
            fields["transcript"] = "".join(call.finals)
        _log.info("%s", _spelt(fields), extra={"fields": fields})


_SECONDS = {"audio", "took", "slowest_chunk"}


def _spelt(fields: dict[str, object]) -> str:
    """Return the fields as a line: the method, then names and values."""
    words = [
        f"{name}={value:.3f}s" if name in _SECONDS else f"{name}={_quoted(value)}"
        for name, value in fields.items()
        if name != "method"
    ]
    return " ".join([str(fields["method"]), *words])


def _quoted(value: object) -> str:
    """Return a value as it stands in a line; text of several words, or of none, in quotes."""
    text = str(value)
    return text if text and not any(c.isspace() or c in "\"'" for c in text) else repr(text)
