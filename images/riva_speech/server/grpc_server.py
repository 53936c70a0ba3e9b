"""The server's life: bind, load, answer, drain."""

from __future__ import annotations

import asyncio
import logging
import os
import ssl
import time
from typing import TYPE_CHECKING, Any

import grpc
import numpy as np
from grpc_health.v1 import health, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from riva_speech.asr.loading import load_recognizers
from riva_speech.asr.streaming import StreamingRecognizer
from riva_speech.errors import ArtifactMissingError, OutOfResourceError, SpeechError, UsageError
from riva_speech.server.calls import Journal
from riva_speech.server.http import HttpServer, Paths, metrics_routes, routes
from riva_speech.server.metrics import Metrics
from riva_speech.server.realtime import SESSIONS_PATH, SOCKET_PATH, Realtime
from riva_speech.server.recognition import RecognitionService, handler
from riva_speech.server.registry import Registry
from riva_speech.server.scheduling import Scheduler
from riva_speech.server.session_keys import KEY_VARIABLE
from riva_speech.server.state import ASR_SERVICE, Health, ServerState
from riva_speech.server.transcriptions import TRANSCRIPTIONS_PATH, Transcriptions
from riva_speech.sessions.opening import Shrinking, opener

if TYPE_CHECKING:
    from concurrent.futures import Executor
    from pathlib import Path

    from riva_speech.server.memory import Shrink
    from riva_speech.server.options import ServerOptions, Tls
    from riva_speech.sessions import SessionOpener

_log = logging.getLogger("riva_speech.server")

_WARM_UP_SECONDS = 1
_PING_EVERY_MS, _PING_ANSWER_MS = 60_000, 20_000


class Server:
    """A gRPC server over one model repository."""

    def __init__(
        self,
        options: ServerOptions,
        executor: Executor,
        open_session: SessionOpener | None = None,
    ) -> None:
        """Build a server; ``open_session`` opens the models where the options do not say how."""
        self._options = options
        self._open_session = open_session
        self._executor = executor
        self._health = Health()
        self._metrics = Metrics()
        self._http: list[HttpServer] = []
        self._scheduler: Scheduler | None = None
        self._loading: asyncio.Task[None] | None = None
        self._grpc = self._build()

    @property
    def is_loading(self) -> bool:
        """Whether a thread still loads models, which only the process's end can cut short."""
        return self._loading is not None and self._loading.cancelled()

    async def run(self, stopping: asyncio.Event) -> None:
        """Serve until ``stopping`` is set, then let running requests end.

        The port answers health checks from the beginning; recognition begins once each model has
        answered a first time. Who stops it before that waits for no model.

        Raises:
            OutOfResourceError: The address is taken.
            SpeechError: A model cannot be loaded.
        """
        self._bind()
        await self._health.enter(ServerState.STARTING)
        await self._grpc.start()
        try:
            await self._start_http()
            if await self._has_loaded(stopping):
                await self._health.enter(ServerState.READY)
                _log.info("Riva server is ready...")
                await stopping.wait()
        except SpeechError:
            await self._health.enter(ServerState.FAILED)
            raise
        finally:
            await self._drain()

    def _build(self) -> grpc.aio.Server:
        server = grpc.aio.server(options=_channel_options(self._options.max_message << 20))
        health_pb2_grpc.add_HealthServicer_to_server(self._health.servicer, server)
        journal = Journal(self._metrics, transcripts=self._options.log_transcripts)
        self._service = RecognitionService(self._options.max_requests, journal)
        server.add_generic_rpc_handlers((handler(self._service),))
        names = (ASR_SERVICE, health.SERVICE_NAME, reflection.SERVICE_NAME)
        reflection.enable_server_reflection(names, server)
        return server

    def _bind(self) -> None:
        tls = self._options.tls
        credentials = _credentials(tls) if tls else None
        try:
            if credentials:
                self._grpc.add_secure_port(self._options.uri, credentials)
            else:
                self._grpc.add_insecure_port(self._options.uri)
        except RuntimeError:
            raise OutOfResourceError(
                f"cannot listen on {self._options.uri}: the address is taken or not ours",
                hint="stop what listens there, or choose another with --riva-uri=HOST:PORT",
            ) from None
        _log.info("Riva Conversational AI Server listening on %s", self._options.uri)

    async def _start_http(self) -> None:
        """Open the ports of HTTP, from which health can be asked while models load."""
        wanted = (
            ("--http_port", self._options.http_port, self._http_paths()),
            ("--metrics_port", self._options.metrics_port, Paths(metrics_routes(self._metrics))),
        )
        for option, port, paths in wanted:
            if port:
                self._http.append(HttpServer(paths))
                await self._http[-1].start(self._options.host, port, option)

    def _http_paths(self) -> Paths:
        """Return what HTTP serves: recognition only where it bypasses no certificate."""
        if self._options.tls:
            return Paths(routes(self._health, self._metrics))
        largest = self._options.max_message << 20
        realtime = Realtime(self._service, largest, os.environ.get(KEY_VARIABLE, "").strip())
        asked = {"/v1/realtime/health": realtime.health, **routes(self._health, self._metrics)}
        return Paths(
            get=asked,
            post={
                SESSIONS_PATH: realtime.mint,
                TRANSCRIPTIONS_PATH: Transcriptions(self._service).answer,
            },
            upgrade={SOCKET_PATH: realtime.converse},
            largest_body=largest,
        )

    async def _has_loaded(self, stopping: asyncio.Event) -> bool:
        """Load the models; return False where that is not over when the server shall stop."""
        self._loading = asyncio.ensure_future(self._load())
        stopped = asyncio.ensure_future(stopping.wait())
        await asyncio.wait((self._loading, stopped), return_when=asyncio.FIRST_COMPLETED)
        stopped.cancel()
        if not self._loading.done():
            self._loading.cancel()
            await asyncio.wait((self._loading,))
            return False
        self._loading.result()
        return True

    async def _load(self) -> None:
        loop = asyncio.get_running_loop()
        registry, keepers = await loop.run_in_executor(self._executor, self._load_models)
        self._scheduler = Scheduler(
            registry.recognizers,
            self._executor,
            self._options.limits,
            self._metrics,
        )
        self._service.open(registry, self._scheduler, keepers)

    def _load_models(self) -> tuple[Registry, list[Shrink]]:
        """Return the models, and what keeps memory for them."""
        options = self._options
        sessions = Shrinking(
            self._open_session or opener(options.threads_a_run, options.triton_uri)
        )
        registry = load_and_warm_up(options.model_repository, sessions, options.max_batch)
        streaming = [one for one in registry.recognizers if isinstance(one, StreamingRecognizer)]
        return registry, [sessions.shrink, *(one.shrink for one in streaming)]

    async def _drain(self) -> None:
        # Before it is ready there is nothing to end, and who watches health would stay.
        patience = 0.0
        if self._health.state is ServerState.READY:
            patience = self._options.drain_timeout
            await self._health.enter(ServerState.DRAINING)
            _log.info("Draining for up to %.0f s", patience)
        self._service.close()
        until = time.monotonic() + patience
        await self._grpc.stop(patience)
        # Until here HTTP told who asked that the server drains; what is left of the time is for it.
        for server in self._http:
            await server.stop(max(0.0, until - time.monotonic()))
        if self._scheduler:
            self._scheduler.close()
        _log.info("Riva server stopped")


def _channel_options(largest_message: int) -> list[tuple[str, int]]:
    """Return gRPC's own settings; ``largest_message`` is in bytes.

    Streams may be silent for as long as they like, and clients may ping meanwhile as often as
    they like. A client that vanished without a word is noticed, and its place is free again.
    """
    return [
        # Two servers that share a port would each get half of the requests.
        ("grpc.so_reuseport", 0),
        ("grpc.max_receive_message_length", largest_message),
        ("grpc.max_send_message_length", largest_message),
        ("grpc.keepalive_time_ms", _PING_EVERY_MS),
        ("grpc.keepalive_timeout_ms", _PING_ANSWER_MS),
        ("grpc.http2.max_pings_without_data", 0),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.min_ping_interval_without_data_ms", 0),
        ("grpc.http2.max_ping_strikes", 0),
    ]


def _credentials(tls: Tls) -> Any:  # noqa: ANN401 - grpc has no types
    """Return what a TLS port needs.

    Raises:
        UsageError: The files are no certificate with its key.
    """
    pair = (tls.key.read_bytes(), tls.certificate.read_bytes())
    try:
        # gRPC would accept a pair that does not fit, and refuse every client. Without a password
        # of ours, OpenSSL would ask whoever sits at the terminal, and wait.
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(tls.certificate, tls.key, password="")
    except ssl.SSLError as error:
        reason = error.reason or "they cannot be read"
        message = f"{tls.certificate} and {tls.key} are no certificate with its key: {reason}"
        raise UsageError(message, hint="both are PEM files, the key without a passphrase") from None
    root = tls.root.read_bytes() if tls.root else None
    return grpc.ssl_server_credentials([pair], root, require_client_auth=tls.mutual)


def load_and_warm_up(root: Path, open_session: SessionOpener, max_batch: int = 1) -> Registry:
    """Load every pipeline and let each answer once, for runs of up to ``max_batch`` requests.

    Raises:
        ArtifactMissingError: There is no pipeline.
        SpeechError: One cannot be loaded.
    """
    registry = Registry(load_recognizers(root, open_session=open_session))
    if not registry.recognizers:
        raise ArtifactMissingError(
            f"the model repository {root} holds no speech recognition pipeline",
            hint="deploy one with riva-deploy, or run riva-qs init",
        )
    for recognizer in registry.recognizers:
        recognizer.learn_to_join()
        rate = recognizer.config.acoustic.features.sample_rate
        noise = np.random.default_rng(0).normal(0, 0.01, rate * _WARM_UP_SECONDS)
        recognizer.recognize(noise.astype(np.float32))
        if isinstance(recognizer, StreamingRecognizer):
            recognizer.rehearse(max_batch)
        _log.info("Model %s (%s) is loaded", recognizer.config.name, recognizer.config.type)
    return registry
