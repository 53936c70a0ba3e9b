"""The one place that speaks gRPC: asks a server for its health, its models and transcripts.

A file goes out as it is, header included and encoding unset, just as the official clients send
it. What goes wrong on the wire becomes a member of our error tree in `translate`.
"""

from __future__ import annotations

import re
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from quickstart.errors import (
    ArtifactMissingError,
    NotAuthorisedError,
    NotReadyError,
    OutOfResourceError,
    RivaQsError,
    UnsupportedError,
    UsageError,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from quickstart.config import Settings

_CHUNK = 8192
_LARGEST_MESSAGE = 64 << 20
_SERVING = b"\x08\x01"


@dataclass(frozen=True)
class Request:
    """What to recognise, and how."""

    audio: bytes
    language_code: str
    model: str = ""
    streaming: bool = True
    word_times: bool = False


@dataclass(frozen=True)
class Word:
    """One word with its times in milliseconds."""

    word: str
    start_time: int
    end_time: int
    confidence: float

    def as_data(self) -> dict[str, Any]:
        """Return the word as JSON data."""
        times = {"start_ms": self.start_time, "end_ms": self.end_time}
        return {"word": self.word, **times, "confidence": self.confidence}


@dataclass(frozen=True)
class Transcript:
    """What was recognised."""

    text: str
    words: tuple[Word, ...]


def reachable(host: str, port: int) -> str:
    """Return the address at which a server that listens on `host` is reached from here."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - compared, not bound
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def require() -> None:
    """Raise UnsupportedError unless the official client package is installed.

    It is looked for and not imported: that takes long, and may be done while a server loads.
    """
    if find_spec("riva") is None or find_spec("riva.client") is None:
        raise _not_installed("there is none")


def _not_installed(cause: object) -> UnsupportedError:
    """Return the error for a client package that cannot be imported."""
    message = f"talking to a server needs the package nvidia-riva-client: {cause}"
    return UnsupportedError(message, "pip install 'riva-qs[client]'")


@dataclass(frozen=True)
class Tls:
    """PEM files of an encrypted connection: who signed the server's certificate, and our own."""

    root: str
    certificate: str = ""
    key: str = ""

    def credentials(self) -> Any:  # noqa: ANN401 - grpc has no types
        """Return what a channel needs."""
        import grpc

        own = [Path(path).read_bytes() if path else None for path in (self.key, self.certificate)]
        return grpc.ssl_channel_credentials(Path(self.root).read_bytes(), *own)


def tls_of(settings: Settings) -> Tls | None:
    """Return how the server of the settings is spoken to; None where it speaks without TLS.

    A certificate that nobody's `ssl_root_cert` signed counts as its own authority. With mutual
    TLS the server's certificate serves as the client's too, as in the official scripts.
    """
    if not settings.ssl_server_cert:
        return None
    root = settings.ssl_root_cert or settings.ssl_server_cert
    if not settings.ssl_use_mutual_auth:
        return Tls(root)
    return Tls(root, settings.ssl_server_cert, settings.ssl_server_key)


@contextmanager
def connect(uri: str, tls: Tls | None = None) -> Iterator[Client]:
    """Give a client of the server at `uri`.

    Raises:
        UnsupportedError: The official client package is not installed.
    """
    try:
        import grpc
        import riva.client  # noqa: F401 - its absence is to be told here
    except ImportError as error:
        raise _not_installed(error) from error
    options = [
        ("grpc.enable_http_proxy", 0),
        ("grpc.max_send_message_length", _LARGEST_MESSAGE),
        ("grpc.max_receive_message_length", _LARGEST_MESSAGE),
    ]
    if tls:
        channel = grpc.secure_channel(uri, tls.credentials(), options=options)
    else:
        channel = grpc.insecure_channel(uri, options=options)
    with channel:
        yield Client(channel, uri)


class Client:
    """A connection to one server."""

    def __init__(self, channel: Any, uri: str) -> None:  # noqa: ANN401 - grpc has no types
        from riva.client.proto import riva_asr_pb2, riva_asr_pb2_grpc

        self._channel = channel
        self._uri = uri
        self._asr = riva_asr_pb2
        self._stub = riva_asr_pb2_grpc.RivaSpeechRecognitionStub(channel)

    def serving(self, timeout: float) -> bool:
        """Say whether the server calls itself ready."""
        # The message has one field; plain bytes avoid a second registration of its protobuf
        # schema, which is fatal in a process that also has the package grpcio-health-checking.
        check = self._channel.unary_unary("/grpc.health.v1.Health/Check")
        with self._translated():
            answer: bytes = check(b"", timeout=timeout)
        return answer.startswith(_SERVING)

    def models(self, timeout: float) -> list[str]:
        """Return the names of the speech recognition models that are loaded."""
        return [config.model_name for config in self._configs(timeout)]

    def transcribe(self, request: Request, timeout: float | None = None) -> Transcript:
        """Return what the server hears in a recording."""
        ask = self._stream if request.streaming else self._recognize
        try:
            with self._translated():
                results = ask(request, timeout)
        except UsageError as error:
            offer = self._offer(timeout) if _NO_SUCH_MODEL in error.message else ""
            if not offer:
                raise
            raise UsageError(error.message, f"the server has {offer}") from error
        best = [result.alternatives[0] for result in results if result.alternatives]
        timed = best if request.word_times else ()
        words = tuple(_word(word) for alternative in timed for word in alternative.words)
        text = " ".join(alternative.transcript.strip() for alternative in best)
        return Transcript(" ".join(text.split()), words)

    def _offer(self, timeout: float | None) -> str:
        """Return in words which models there are; empty where the server does not say."""
        with suppress(RivaQsError):
            return ", ".join(
                f"{one.model_name} ({one.parameters['language_code']}, {one.parameters['type']})"
                for one in self._configs(timeout)
            )
        return ""

    def _configs(self, timeout: float | None) -> Any:  # noqa: ANN401 - the stubs have no types
        """Return what the server says of its speech recognition models."""
        request = self._asr.RivaSpeechRecognitionConfigRequest()
        with self._translated():
            return self._stub.GetRivaSpeechRecognitionConfig(request, timeout=timeout).model_config

    def _config(self, request: Request) -> Any:  # noqa: ANN401 - the stubs have no types
        """Return the recognition config of a request."""
        return self._asr.RecognitionConfig(
            language_code=request.language_code,
            model=request.model,
            max_alternatives=1,
            enable_word_time_offsets=request.word_times,
        )

    def _recognize(self, request: Request, timeout: float | None) -> list[Any]:
        """Send a recording whole and return the results."""
        message = self._asr.RecognizeRequest(config=self._config(request), audio=request.audio)
        return list(self._stub.Recognize(message, timeout=timeout).results)

    def _stream(self, request: Request, timeout: float | None) -> list[Any]:
        """Send a recording in chunks and return the final results."""
        config = self._asr.StreamingRecognitionConfig(config=self._config(request))
        responses = self._stub.StreamingRecognize(self._chunks(config, request), timeout=timeout)
        return [r for response in responses for r in response.results if r.is_final]

    def _chunks(self, config: Any, request: Request) -> Iterator[Any]:  # noqa: ANN401 - as above
        """Yield the messages of a stream: the config first, then the audio."""
        yield self._asr.StreamingRecognizeRequest(streaming_config=config)
        for start in range(0, len(request.audio), _CHUNK):
            chunk = request.audio[start : start + _CHUNK]
            yield self._asr.StreamingRecognizeRequest(audio_content=chunk)

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """Turn what goes wrong on the wire into our errors."""
        import grpc

        try:
            yield
        except grpc.RpcError as error:
            raise translate(error.code().name, error.details() or "", self._uri) from error


def _word(word: Any) -> Word:  # noqa: ANN401 - the stubs have no types
    """Return a word of the wire as ours."""
    return Word(word.word, word.start_time, word.end_time, round(word.confidence, 4))


# How Riva's sentence begins; what it goes on with depends on the release.
_NO_SUCH_MODEL = "Unavailable model requested"

# A handshake that is cut off says nothing: a container's port opens before its server does.
_DISTRUST = re.compile(r"certificate|hostname verification|wrong version number", re.IGNORECASE)
_RUNNING = "riva-qs start starts one; riva-qs status says how it is"
STATUS: dict[str, tuple[type[RivaQsError], str]] = {
    "UNAVAILABLE": (NotReadyError, _RUNNING),
    "DEADLINE_EXCEEDED": (NotReadyError, "riva-qs logs shows what the server does"),
    "INVALID_ARGUMENT": (UsageError, "check the recording, --language-code and --model"),
    "OUT_OF_RANGE": (UsageError, "check the recording"),
    "FAILED_PRECONDITION": (RivaQsError, ""),
    "NOT_FOUND": (ArtifactMissingError, "riva-qs --json status lists the models"),
    "ALREADY_EXISTS": (RivaQsError, ""),
    "PERMISSION_DENIED": (NotAuthorisedError, ""),
    "UNAUTHENTICATED": (NotAuthorisedError, ""),
    "RESOURCE_EXHAUSTED": (
        OutOfResourceError,
        "try again later, or --streaming for a long recording",
    ),
    "UNIMPLEMENTED": (UnsupportedError, "that service is not enabled on the server"),
    "CANCELLED": (RivaQsError, "the server may be stopping: riva-qs status"),
    "ABORTED": (RivaQsError, "try again"),
    "UNKNOWN": (RivaQsError, "riva-qs logs shows the cause"),
    "INTERNAL": (RivaQsError, "riva-qs logs shows the cause"),
    "DATA_LOSS": (RivaQsError, "riva-qs logs shows the cause"),
}


def translate(status: str, details: str, uri: str) -> RivaQsError:
    """Return our error for a gRPC status."""
    if status == "UNAVAILABLE" and _DISTRUST.search(details):
        hint = "the certificate must name this host, and ssl_root_cert must have signed it"
        return NotAuthorisedError(f"no TLS connection to {uri}: {details.strip()}", hint)
    kind, hint = STATUS.get(status, (RivaQsError, ""))
    if status == "UNAVAILABLE":
        cause = details.rpartition("remote host: ")[2]
        return kind(f"no server answers at {uri}: {cause}", hint)
    return kind(f"the server at {uri} answered {status}: {details.strip()}", hint)
