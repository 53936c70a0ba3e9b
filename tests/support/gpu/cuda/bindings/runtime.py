"""A stand-in for NVIDIA's binding of the CUDA runtime: its functions on this machine's own memory.

What is given to a stream is done when it is waited for, no sooner: what does not wait, or lets go
of memory too early, is found out. Faults are switched on by variables of the environment:
``STAND_IN_MEMORY`` is how many bytes the GPU has, ``STAND_IN_FAULT=synchronise`` lets work fail.
"""

from __future__ import annotations

import ctypes
import itertools
import os
import threading
from enum import IntEnum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable


class cudaError_t(IntEnum):
    cudaSuccess = 0
    cudaErrorInvalidValue = 1
    cudaErrorMemoryAllocation = 2
    cudaErrorInvalidResourceHandle = 400
    cudaErrorIllegalAddress = 700


class cudaMemcpyKind(IntEnum):
    cudaMemcpyHostToHost = 0
    cudaMemcpyHostToDevice = 1
    cudaMemcpyDeviceToHost = 2
    cudaMemcpyDeviceToDevice = 3
    cudaMemcpyDefault = 4


_SAID = {
    cudaError_t.cudaSuccess: b"no error",
    cudaError_t.cudaErrorInvalidValue: b"invalid argument",
    cudaError_t.cudaErrorMemoryAllocation: b"out of memory",
    cudaError_t.cudaErrorInvalidResourceHandle: b"invalid resource handle",
    cudaError_t.cudaErrorIllegalAddress: b"an illegal memory access was encountered",
}
_OK = cudaError_t.cudaSuccess
_MUCH = 1 << 40
_lock = threading.RLock()
_handles = itertools.count(1000)
_blocks: dict[int, ctypes.Array[ctypes.c_char]] = {}
_streams: dict[int, list[Callable[[], None]]] = {}


def cudaGetErrorString(error: cudaError_t) -> tuple[cudaError_t, bytes]:
    return _OK, _SAID[error]


def cudaMalloc(size: int) -> tuple[cudaError_t, int | None]:
    with _lock:
        if size > cudaMemGetInfo()[1]:
            return cudaError_t.cudaErrorMemoryAllocation, None
        block = ctypes.create_string_buffer(size)
        _blocks[ctypes.addressof(block)] = block
        return _OK, ctypes.addressof(block)


def cudaMemGetInfo() -> tuple[cudaError_t, int, int]:
    total = int(os.environ.get("STAND_IN_MEMORY", _MUCH))
    with _lock:
        return _OK, total - sum(map(len, _blocks.values())), total


def cudaFree(devPtr: int) -> tuple[cudaError_t]:
    with _lock:
        for stream in _streams:
            _finish(stream)
        if _blocks.pop(devPtr, None) is None:
            return (cudaError_t.cudaErrorInvalidValue,)
    return (_OK,)


def cudaStreamCreate() -> tuple[cudaError_t, int]:
    with _lock:
        handle = next(_handles)
        _streams[handle] = []
    return _OK, handle


def cudaStreamDestroy(stream: int) -> tuple[cudaError_t]:
    with _lock:
        if _streams.pop(stream, None) is None:
            return (cudaError_t.cudaErrorInvalidResourceHandle,)
    return (_OK,)


def cudaStreamSynchronize(stream: int) -> tuple[cudaError_t]:
    if stream not in _streams:
        return (cudaError_t.cudaErrorInvalidResourceHandle,)
    _finish(stream)
    failing = os.environ.get("STAND_IN_FAULT") == "synchronise"
    return (cudaError_t.cudaErrorIllegalAddress if failing else _OK,)


def cudaMemcpyAsync(
    dst: int, src: int, count: int, kind: cudaMemcpyKind, stream: int
) -> tuple[cudaError_t]:
    if stream not in _streams:
        return (cudaError_t.cudaErrorInvalidResourceHandle,)
    on_gpu = {
        cudaMemcpyKind.cudaMemcpyHostToDevice: dst,
        cudaMemcpyKind.cudaMemcpyDeviceToHost: src,
    }[kind]
    if not holds(on_gpu, count):
        return (cudaError_t.cudaErrorInvalidValue,)
    enqueue(stream, lambda: ctypes.memmove(dst, src, count))
    return (_OK,)


def cudaMemcpy2DAsync(  # noqa: PLR0913, PLR0917 - NVIDIA's own
    dst: int,
    dpitch: int,
    src: int,
    spitch: int,
    width: int,
    height: int,
    kind: cudaMemcpyKind,
    stream: int,
) -> tuple[cudaError_t]:
    if stream not in _streams:
        return (cudaError_t.cudaErrorInvalidResourceHandle,)
    places = ((dst, dpitch), (src, spitch))
    fits = all(holds(at, (height - 1) * pitch + width) and width <= pitch for at, pitch in places)
    if kind != cudaMemcpyKind.cudaMemcpyDeviceToDevice or not fits:
        return (cudaError_t.cudaErrorInvalidValue,)

    def copy() -> None:
        for row in range(height):
            target, source = dst + row * dpitch, src + row * spitch
            # The GPU copies in any order: what overlaps would be lost.
            assert abs(target - source) >= width
            ctypes.memmove(target, source, width)

    enqueue(stream, copy)
    return (_OK,)


def cudaMemsetAsync(devPtr: int, value: int, count: int, stream: int) -> tuple[cudaError_t]:
    if stream not in _streams:
        return (cudaError_t.cudaErrorInvalidResourceHandle,)
    if not holds(devPtr, count):
        return (cudaError_t.cudaErrorInvalidValue,)
    enqueue(stream, lambda: ctypes.memset(devPtr, value, count))
    return (_OK,)


def holds(address: int, count: int) -> bool:
    """Tell the stand-in for the library whether so much is allocated there."""
    with _lock:
        return any(
            begin <= address <= begin + len(block) - count for begin, block in _blocks.items()
        )


def enqueue(stream: int, work: Callable[[], Any]) -> None:
    """Let the stand-in for the library give work to a stream."""
    with _lock:
        _streams[stream].append(work)


def _finish(stream: int) -> None:
    """Do what was given to a stream."""
    with _lock:
        works, _streams[stream] = _streams[stream], []
        for work in works:
            work()
