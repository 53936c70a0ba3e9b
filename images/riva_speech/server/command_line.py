"""The command line of ``start-riva``, spelt as that of NVIDIA's server."""

from __future__ import annotations

import argparse
import math
import os
from pathlib import Path
from typing import TYPE_CHECKING

from riva_speech import __version__
from riva_speech.program import LogFormat
from riva_speech.server.options import ServerOptions, Tls

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_LARGEST_PORT = 65535
_LONGEST_DELAY_MS = 1000
_LONGEST_DRAIN = 24 * 3600
# gRPC counts bytes in 32 bits with a sign.
_LARGEST_MESSAGE = 2047
_HTTP_PORT_VARIABLE = "RIVA_SERVER_HTTP_PORT"


def parse(argv: Sequence[str]) -> ServerOptions:
    """Read the command line; a wrong one ends the program with exit code 2."""
    parser = argparse.ArgumentParser(
        prog="start-riva", description="Serve a model repository over Riva's gRPC API."
    )
    parser.add_argument("--version", action="version", version=f"start-riva {__version__}")
    _add_service(parser)
    _add_http(parser)
    _add_limits(parser)
    _add_log(parser)
    _add_tls(parser)
    chosen = parser.parse_args(argv)
    _check_services(parser, chosen)
    return ServerOptions(
        uri=chosen.riva_uri,
        model_repository=chosen.model_repository,
        max_requests=chosen.max_requests,
        max_batch=chosen.max_batch,
        batch_delay=chosen.batch_delay / 1000,
        triton_uri=chosen.triton_uri or "",
        threads=chosen.threads,
        parallel_runs=chosen.parallel_runs,
        max_message=chosen.max_message,
        drain_timeout=chosen.drain_timeout,
        http_port=_http_port(parser) if chosen.http_port is None else chosen.http_port,
        metrics_port=chosen.metrics_port,
        log_format=LogFormat(chosen.log_format),
        log_transcripts=chosen.log_transcripts,
        tls=_tls(parser, chosen),
    )


def _add_service(parser: argparse.ArgumentParser) -> None:
    """Add what is served, and where."""
    parser.add_argument(
        "--riva-uri",
        default="0.0.0.0:50051",
        metavar="HOST:PORT",
        type=_uri,
        help="address to listen on (default: %(default)s)",
    )
    parser.add_argument(
        "--model_repository",
        default=Path("/data/models"),
        metavar="DIR",
        type=Path,
        help="repository that riva-deploy wrote (default: %(default)s)",
    )
    parser.add_argument(
        "--triton-uri",
        metavar="HOST:PORT",
        type=_uri,
        help="let a Triton that serves the same repository run the acoustic models",
    )
    for service, default in (("asr", True), ("tts", False), ("nlp", False)):
        parser.add_argument(
            f"--{service}_service",
            default=default,
            metavar="BOOL",
            type=_boolean,
            help=f"serve {service.upper()} (default: {str(default).lower()})",
        )


def _check_services(parser: argparse.ArgumentParser, chosen: argparse.Namespace) -> None:
    for service in ("tts", "nlp"):
        if getattr(chosen, f"{service}_service"):
            parser.error(f"--{service}_service=true: this version serves speech recognition only")
    if not chosen.asr_service:
        parser.error("--asr_service=false: there is nothing else to serve")


def _add_limits(parser: argparse.ArgumentParser) -> None:
    """Add how much is taken at once."""
    milliseconds = _number(_LONGEST_DELAY_MS, "milliseconds")
    seconds = _number(_LONGEST_DRAIN, "seconds")
    rows: tuple[tuple[str, float, str, Callable[[str], float], str], ...] = (
        ("--max_requests", ServerOptions.max_requests, "N", _positive,
         "recognitions at once; more are refused (default: %(default)s)"),
        ("--max_batch", ServerOptions.max_batch, "N", _positive,
         "streams or utterances in one run of a model (default: %(default)s)"),
        ("--batch_delay", 1000 * ServerOptions.batch_delay, "MS", milliseconds,
         "how long a step waits for others when its model is free (default: %(default)s ms)"),
        ("--threads", ServerOptions.threads, "N", _positive,
         "threads that run a model (default: one a core)"),
        ("--parallel_runs", ServerOptions.parallel_runs, "N", _positive,
         "runs of a model at once, which share its threads (default: 2, with one thread 1)"),
        ("--max-message", ServerOptions.max_message, "MIB", _message_size,
         "largest message, in and out; larger ones are refused (default: %(default)s MiB)"),
        ("--drain_timeout", ServerOptions.drain_timeout, "SECONDS", seconds,
         "how long running requests may take after SIGTERM (default: %(default)s)"),
    )  # fmt: skip
    for name, default, metavar, kind, text in rows:
        parser.add_argument(name, default=default, metavar=metavar, type=kind, help=text)


def _add_http(parser: argparse.ArgumentParser) -> None:
    """Add the ports of HTTP."""
    parser.add_argument(
        "--http_port",
        metavar="PORT",
        type=_port,
        help="port of /v1/health and /v1/metrics and, without TLS, of recognition; 0 for none "
        f"(default: ${_HTTP_PORT_VARIABLE}, or none)",
    )
    parser.add_argument(
        "--metrics_port",
        default=ServerOptions.metrics_port,
        metavar="PORT",
        type=_port,
        help="a further port, for /metrics alone; 0 for none (default: none)",
    )


def _http_port(parser: argparse.ArgumentParser) -> int:
    """Return the port that the official variable of NVIDIA's image names; 0 without it."""
    text = os.environ.get(_HTTP_PORT_VARIABLE) or "0"
    try:
        return _port(text)
    except argparse.ArgumentTypeError as error:
        parser.error(f"{_HTTP_PORT_VARIABLE}: {error}")


def _add_log(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--log_format",
        choices=[one.value for one in LogFormat],
        default=LogFormat.TEXT.value,
        help="how log lines are written: text, or one JSON object a line (default: %(default)s)",
    )
    parser.add_argument(
        "--log_transcripts",
        action="store_true",
        help="log what was recognised, too; without it, neither audio nor text is ever logged",
    )


def _add_tls(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("TLS")
    group.add_argument("--use_ssl", action="store_true", help="speak TLS only")
    group.add_argument("--ssl_server_cert", type=Path, metavar="PEM", help="the certificate")
    group.add_argument("--ssl_server_key", type=Path, metavar="PEM", help="its private key")
    group.add_argument("--ssl_root_cert", type=Path, metavar="PEM", help="who signs for clients")
    group.add_argument(
        "--ssl_use_mutual_auth", action="store_true", help="clients show a certificate too"
    )


def _tls(parser: argparse.ArgumentParser, chosen: argparse.Namespace) -> Tls | None:
    """Return what was chosen of TLS; half of it is an error: nothing is plain by mistake."""
    given = (chosen.ssl_server_cert, chosen.ssl_server_key)
    if not chosen.use_ssl:
        if any(given) or chosen.ssl_use_mutual_auth:
            parser.error("the options of TLS need --use_ssl")
        return None
    if not all(given):
        parser.error("--use_ssl needs --ssl_server_cert and --ssl_server_key")
    if chosen.ssl_use_mutual_auth and not chosen.ssl_root_cert:
        parser.error("--ssl_use_mutual_auth needs --ssl_root_cert")
    return Tls(*given, chosen.ssl_root_cert, chosen.ssl_use_mutual_auth)


def _boolean(text: str) -> bool:
    values = {"true": True, "false": False, "1": True, "0": False}
    if text.lower() not in values:
        raise argparse.ArgumentTypeError(f"illegal value {text!r}: true or false is wanted")
    return values[text.lower()]


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of at least 1")
    return int(text)


def _number(most: int, unit: str) -> Callable[[str], float]:
    """Return what reads a number from 0 to ``most``."""

    def parse(text: str) -> float:
        """Return the number, or raise ArgumentTypeError."""
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        # Written so that NaN, which compares as false, is refused too.
        if not 0 <= value <= most:
            raise argparse.ArgumentTypeError(f"{text!r} is not 0 to {most} {unit}")
        return value

    return parse


def _message_size(text: str) -> int:
    size = _positive(text)
    if size > _LARGEST_MESSAGE:
        raise argparse.ArgumentTypeError(f"{text} MiB: gRPC takes at most {_LARGEST_MESSAGE}")
    return size


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > _LARGEST_PORT:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port: 0 to {_LARGEST_PORT}")
    return int(text)


def _uri(text: str) -> str:
    host, _, port = text.rpartition(":")
    if not host or not port.isdigit() or int(port) > _LARGEST_PORT:
        raise argparse.ArgumentTypeError(f"{text!r} is not HOST:PORT")
    return text
