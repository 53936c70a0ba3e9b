"""The command line of ``start-riva``, spelt as that of NVIDIA's server."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from riva_speech import __version__
from riva_speech.server.options import ServerOptions, Tls

if TYPE_CHECKING:
    from collections.abc import Sequence

_LARGEST_PORT = 65535


def parse(argv: Sequence[str]) -> ServerOptions:
    """Read the command line; a wrong one ends the program with exit code 2."""
    parser = argparse.ArgumentParser(
        prog="start-riva", description="Serve a model repository over Riva's gRPC API."
    )
    parser.add_argument("--version", action="version", version=f"start-riva {__version__}")
    _add_service(parser)
    _add_limits(parser)
    _add_tls(parser)
    chosen = parser.parse_args(argv)
    _check_services(parser, chosen)
    return ServerOptions(
        uri=chosen.riva_uri,
        model_repository=chosen.model_repository,
        max_requests=chosen.max_requests,
        drain_timeout=chosen.drain_timeout,
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
    parser.add_argument(
        "--max_requests",
        default=ServerOptions.max_requests,
        metavar="N",
        type=int,
        help="recognitions at once; more are refused (default: %(default)s)",
    )
    parser.add_argument(
        "--drain_timeout",
        default=ServerOptions.drain_timeout,
        metavar="SECONDS",
        type=float,
        help="how long running requests may take after SIGTERM (default: %(default)s)",
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


def _uri(text: str) -> str:
    host, _, port = text.rpartition(":")
    if not host or not port.isdigit() or int(port) > _LARGEST_PORT:
        raise argparse.ArgumentTypeError(f"{text!r} is not HOST:PORT")
    return text
