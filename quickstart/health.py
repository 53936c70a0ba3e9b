"""Whether the service is ready, in three steps: alive, loaded, answers.

*alive*: the server runs. *loaded*: it lists every model that was deployed. *answers*: a recording
gives words through the public port. `wait` asks until all hold, or the server has ended, or the
time is over, or the answer is one that asking again does not change.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from quickstart.errors import NotAuthorisedError, NotReadyError, RivaQsError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from quickstart.backends.base import Backend, Exit, Model
    from quickstart.client import Client, Tls

_SHORTEST_PAUSE, _LONGEST_PAUSE = 0.05, 0.25
# What has taken long will take longer: asking less often then costs little and loads less.
_PAUSE_PER_SECOND = 0.02
# A server that talks and still loads: asking it over the connection that is there costs next to
# nothing, so it is asked again, so many seconds apart and for so many, before anything else is.
_MOMENT, _ASKED_FOR = 0.01, 0.25
_QUICK, _THOROUGH = 5.0, 20.0
_SETTLED_AFTER = 3
_TOLD_EVERY = 15


@dataclass(frozen=True)
class Check:
    """One of the three questions with its answer; `settled` when asking again is vain."""

    ok: bool
    detail: str
    settled: bool = False


UNASKED = Check(ok=False, detail="not asked yet")


@dataclass(frozen=True)
class Health:
    """The answers to the three questions."""

    alive: Check
    loaded: Check = UNASKED
    answers: Check = UNASKED

    @property
    def ready(self) -> bool:
        """Whether the service does its work."""
        return self.answers.ok

    @property
    def last(self) -> Check:
        """The first question that was answered with no, else the last one."""
        return next((c for c in (self.alive, self.loaded) if not c.ok), self.answers)


class Probe(Protocol):
    """Asks the three questions."""

    def alive(self) -> Check:
        """Ask whether the server runs."""
        ...

    def loaded(self) -> Check:
        """Ask whether every model is loaded."""
        ...

    def answers(self, timeout: float) -> Check:
        """Ask for the words in a recording."""
        ...

    def ended(self) -> Exit:
        """Say how the server ended."""
        ...


@dataclass(frozen=True)
class Ready:
    """The service answers."""

    health: Health


@dataclass(frozen=True)
class Exited:
    """The server ended before it was ready."""

    exit: Exit


@dataclass(frozen=True)
class TimedOut:
    """The service is not ready, and waiting longer was not asked for or is vain."""

    health: Health
    waited: float


def examine(probe: Probe, timeout: float = _THOROUGH) -> Health:
    """Ask the three questions in turn, until one is answered with no."""
    alive = probe.alive()
    if not alive.ok:
        return Health(alive)
    loaded = probe.loaded()
    if not loaded.ok:
        return Health(alive, loaded)
    return Health(alive, loaded, probe.answers(timeout))


def wait(
    probe: Probe, timeout: float, report: Callable[[str], None] = lambda _: None
) -> Ready | Exited | TimedOut:
    """Ask until the service is ready, its server has ended, or the time is over."""
    began = time.monotonic()
    settled = 0
    while True:
        left = began + timeout - time.monotonic()
        health = examine(probe, max(min(left, _THOROUGH), _LONGEST_PAUSE))
        if health.ready:
            return Ready(health)
        if not health.alive.ok:
            return Exited(probe.ended())
        report(_lasting(health.last.detail, time.monotonic() - began, timeout))
        settled = settled + 1 if health.last.settled else 0
        if settled == _SETTLED_AFTER or left <= 0:
            return TimedOut(health, time.monotonic() - began)
        now = time.monotonic()
        pause = max(_SHORTEST_PAUSE, min(_PAUSE_PER_SECOND * (now - began), _LONGEST_PAUSE))
        time.sleep(min(pause, max(began + timeout - now, 0)))


def _lasting(detail: str, waited: float, timeout: float) -> str:
    """Return what is waited for, with how long by now, which changes every so often."""
    rounded = int(waited // _TOLD_EVERY * _TOLD_EVERY)
    return f"{detail} ({rounded} of {timeout:.0f} s)" if rounded else detail


def _serves(server: Client) -> bool:
    """Say whether a server calls itself ready, now or within a moment."""
    until = time.monotonic() + _ASKED_FOR
    while not (serves := server.serving(_QUICK)) and time.monotonic() < until:
        time.sleep(_MOMENT)
    return serves


def _plain(name: str) -> str:
    """Return a model's name without what NVIDIA's server may add to it, or its repository."""
    return name.removesuffix("-asr-bls-ensemble")


@dataclass(frozen=True)
class ServiceProbe:
    """Asks a backend's server, through its public port."""

    backend: Backend
    uri: str
    models: Sequence[Model]
    recording: str
    audio: bytes
    tls: Tls | None = None

    def alive(self) -> Check:
        """Ask whether the server runs."""
        running = self.backend.state()
        if running is None:
            return Check(ok=False, detail="no server runs")
        return Check(ok=True, detail=f"the server runs ({running})")

    def loaded(self) -> Check:
        """Ask whether the server lists every model that was deployed."""
        from quickstart import client

        try:
            with client.connect(self.uri, self.tls) as server:
                if not _serves(server):
                    return Check(ok=False, detail="the server loads its models")
                listed = server.models(_QUICK)
        except NotReadyError:
            return Check(ok=False, detail=f"the server does not answer at {self.uri} yet")
        except RivaQsError as error:
            vain = isinstance(error, NotAuthorisedError)
            return Check(ok=False, detail=error.message, settled=vain)
        known = set(map(_plain, listed))
        spoken = (model for model in self.models if model.service == "asr")
        missing = [model.name for model in spoken if _plain(model.name) not in known]
        if missing:
            return Check(ok=False, detail=f"not loaded: {', '.join(missing)}")
        return Check(ok=True, detail=f"the models {', '.join(listed)} are loaded")

    def answers(self, timeout: float) -> Check:
        """Ask for the words in the readiness recording."""
        from quickstart import client

        model = self._spoken_to()
        if model is None:
            return Check(ok=True, detail="no model here takes a recording")
        try:
            with client.connect(self.uri, self.tls) as server:
                names = {_plain(name): name for name in server.models(_QUICK)}
                request = client.Request(
                    audio=self.audio,
                    language_code=model.language_code,
                    model=names.get(_plain(model.name), model.name),
                    streaming=model.type == "online",
                )
                heard = server.transcribe(request, timeout)
        except UsageError as error:
            return Check(ok=False, detail=error.message, settled=True)
        except RivaQsError as error:
            return Check(ok=False, detail=error.message)
        if not heard.text:
            heard_none = f"{model.name} heard no words in {self.recording}"
            detail = f"{heard_none}; set readiness_audio to one in its language"
            return Check(ok=False, detail=detail, settled=True)
        return Check(ok=True, detail=f'{model.name} heard "{heard.text}" in {self.recording}')

    def ended(self) -> Exit:
        """Say how the server ended."""
        return self.backend.ended()

    def _spoken_to(self) -> Model | None:
        """Return the model that the recording is sent to: a streaming one where there is one."""
        asr = [model for model in self.models if model.service == "asr"]
        return next((m for m in asr if m.type == "online"), asr[0] if asr else None)
