"""What the server is doing, and what health checks hear of it."""

from __future__ import annotations

from enum import Enum

from grpc_health.v1 import health_pb2
from grpc_health.v1.health import aio as health_aio
from riva.client.proto import riva_asr_pb2

ASR_SERVICE = riva_asr_pb2.DESCRIPTOR.services_by_name["RivaSpeechRecognition"].full_name


class ServerState(Enum):
    """The states of a server, in the order they are passed through."""

    STARTING = "starting"
    READY = "ready"
    DRAINING = "draining"
    FAILED = "failed"


class Health:
    """The service ``grpc.health.v1.Health``: SERVING in READY, NOT_SERVING in every other state.

    The empty name stands for the server as a whole.
    """

    def __init__(self) -> None:
        self.servicer = health_aio.HealthServicer()
        self.state = ServerState.STARTING

    async def enter(self, state: ServerState) -> None:
        """Change the state and tell whoever watches."""
        self.state = state
        answer = health_pb2.HealthCheckResponse
        status = answer.SERVING if state is ServerState.READY else answer.NOT_SERVING
        for service in ("", ASR_SERVICE):
            await self.servicer.set(service, status)
