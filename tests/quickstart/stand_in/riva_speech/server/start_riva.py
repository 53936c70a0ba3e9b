"""Serves the protocol of the real server; hears the same words in every recording."""

# ruff: noqa: N802, T201 - the stubs name the methods, and it logs by print

import argparse
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from concurrent import futures
from pathlib import Path
from typing import Any

import grpc
from riva.client.proto import riva_asr_pb2 as asr
from riva.client.proto import riva_asr_pb2_grpc as asr_grpc

FAULT = os.environ.get("STAND_IN_SERVE", "")
HEARD = "" if FAULT == "deaf" else "one two three "


def log(text: str) -> None:
    """Write a log line as the real server does."""
    now = time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime())
    print(f"{now} INFO {text}", file=sys.stderr, flush=True)


def fail(code: int, *lines: str) -> None:
    """End as the real server does when it cannot go on."""
    for line in lines:
        print(line, file=sys.stderr, flush=True)
    sys.exit(code)


class Recognition(asr_grpc.RivaSpeechRecognitionServicer):  # type: ignore[misc]  # the stubs have no types
    """The calls that readiness and transcription make."""

    def __init__(self, models: list[str]) -> None:
        self._models = models

    def GetRivaSpeechRecognitionConfig(self, _request: Any, _context: Any) -> Any:
        """List the models."""
        rows = [asr.RivaSpeechRecognitionConfigResponse.Config(model_name=m) for m in self._models]
        return asr.RivaSpeechRecognitionConfigResponse(model_config=rows)

    def Recognize(self, request: Any, context: Any) -> Any:
        """Hear the same as ever, in any audio that is not empty."""
        if request.config.model == "unknown":
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "Error: Unavailable model requested. ")
        return asr.RecognizeResponse(results=[asr.SpeechRecognitionResult(alternatives=[best()])])

    def StreamingRecognize(self, requests: Iterator[Any], _context: Any) -> Iterator[Any]:
        """Hear the same as ever, at the end of the stream."""
        received = sum(len(request.audio_content) for request in requests)
        log(f"received {received} bytes of audio")
        result = asr.StreamingRecognitionResult(alternatives=[best()], is_final=True)
        yield asr.StreamingRecognizeResponse(results=[result])


def best() -> Any:
    """Return what is heard, with word times."""
    words = [
        asr.WordInfo(word=word, start_time=100 * i, end_time=100 * i + 80, confidence=0.5)
        for i, word in enumerate(HEARD.split())
    ]
    return asr.SpeechRecognitionAlternative(transcript=HEARD, confidence=0.5, words=words)


def check_health(_request: bytes, _context: object) -> bytes:
    """Answer SERVING, or NOT_SERVING for ever."""
    return b"\x08\x02" if FAULT == "loading" else b"\x08\x01"


def serve(uri: str, repository: Path) -> None:
    """Serve until SIGTERM."""
    server = grpc.server(futures.ThreadPoolExecutor(4), options=[("grpc.so_reuseport", 0)])
    names = sorted(p.name.removesuffix("-streaming") for p in repository.iterdir())
    recognition = Recognition([f"{name}-asr-streaming" for name in names])
    asr_grpc.add_RivaSpeechRecognitionServicer_to_server(recognition, server)
    check = grpc.unary_unary_rpc_method_handler(check_health)
    handlers = grpc.method_handlers_generic_handler("grpc.health.v1.Health", {"Check": check})
    server.add_generic_rpc_handlers((handlers,))
    server.add_insecure_port(uri)
    server.start()
    log(f"listening on {uri}; secrets: {[n for n in os.environ if 'KEY' in n]}")
    ended = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: ended.set() if FAULT != "stubborn" else None)
    ended.wait()
    log("drained")
    server.stop(None)


def main() -> None:
    """Serve, or show the fault that was asked for."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--riva-uri")
    parser.add_argument("--model_repository", type=Path)
    for service in ("asr", "tts", "nlp"):
        parser.add_argument(f"--{service}_service", choices=["true", "false"])
    for number in (
        "http_port",
        "metrics_port",
        "max_requests",
        "max_batch",
        "threads",
        "max-message",
    ):
        parser.add_argument(f"--{number}", type=int)
    parser.add_argument("--log_format", choices=["text", "json"])
    parser.add_argument("--log_transcripts", action="store_true")
    arguments = parser.parse_args()
    if FAULT == "exit":
        fail(3, "error: no model can be loaded", "hint: deploy again", "error: a consequence")
    if FAULT == "crash":
        raise ValueError("unforeseen")
    if FAULT == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if FAULT == "mute":
        log("not listening")
        time.sleep(600)
    serve(arguments.riva_uri, arguments.model_repository)


if __name__ == "__main__":
    main()
