"""``riva-probe``: ask a server's health service, as the image's HEALTHCHECK does.

riva-probe [--addr=HOST:PORT]
"""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from riva_speech import __version__, program
from riva_speech.errors import SpeechError

if TYPE_CHECKING:
    from collections.abc import Sequence


class NotReadyError(SpeechError):
    """The server does not serve: not yet, not any more, or not at all."""

    exit_code = 6


def main(argv: Sequence[str] | None = None) -> None:
    """Run the program and exit with its code: 0 when the server serves, else 6."""
    parser = argparse.ArgumentParser(
        prog="riva-probe", description="Ask whether a server has loaded its models and serves."
    )
    parser.add_argument("--version", action="version", version=f"riva-probe {__version__}")
    parser.add_argument(
        "--addr", default="127.0.0.1:50051", metavar="HOST:PORT", help="(default: %(default)s)"
    )
    parser.add_argument(
        "--timeout", default=3.0, type=float, metavar="SECONDS", help="(default: %(default)s)"
    )
    chosen = parser.parse_args(sys.argv[1:] if argv is None else argv)
    sys.exit(program.run(lambda: probe(chosen.addr, chosen.timeout)))


def probe(address: str, timeout: float) -> None:
    """Ask the health service once.

    Raises:
        NotReadyError: It says that it does not serve, or nothing.
    """
    import grpc  # noqa: PLC0415 - after the help text
    from grpc_health.v1 import health_pb2, health_pb2_grpc  # noqa: PLC0415 - as grpc

    with grpc.insecure_channel(address) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        try:
            answer = stub.Check(health_pb2.HealthCheckRequest(), timeout=timeout)
        except grpc.RpcError as error:
            raise NotReadyError(f"no answer from {address}: {error.code().name}") from error
    status = health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)
    if answer.status != health_pb2.HealthCheckResponse.SERVING:
        raise NotReadyError(f"{address} says {status}")


if __name__ == "__main__":
    main()
