"""Riva's gRPC API over the pipelines.

repository -> loading -> registry -> recognition (the service) -> grpc_server
"""
