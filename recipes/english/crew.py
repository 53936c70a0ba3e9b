"""Several processes that train one model, each on a GPU of its own, as `torchrun` starts them."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, TypeAlias

import torch
from torch import distributed

if TYPE_CHECKING:
    from collections.abc import Iterable

Tensor: TypeAlias = Any


class Crew:
    """This process among all that train; alone where nothing else was started.

    Attributes:
        rank: The number of this process, from 0.
        size: How many there are.
        device: What this process computes on.
    """

    def __init__(self, device: str) -> None:
        """Meet the others; a GPU is taken by the process's number on its host."""
        self.rank = int(os.environ.get("RANK", "0"))
        self.size = int(os.environ.get("WORLD_SIZE", "1"))
        self.device = device
        if device == "cuda":
            self.device = f"cuda:{os.environ.get('LOCAL_RANK', '0')}"
            torch.cuda.set_device(self.device)
        if self.size > 1:
            on_gpu = "cuda" in self.device
            distributed.init_process_group("cpu:gloo,cuda:nccl" if on_gpu else "gloo")

    @property
    def first(self) -> bool:
        """Say whether this is the process that reports, decides and writes."""
        return self.rank == 0

    def same(self, tensors: Iterable[Tensor]) -> None:
        """Give all processes the first one's tensors."""
        for one in tensors if self.size > 1 else ():
            distributed.broadcast(one, 0)

    def average(self, tensor: Tensor) -> None:
        """Replace a tensor by its mean over all processes."""
        if self.size > 1:
            distributed.all_reduce(tensor)
            tensor /= self.size

    def agree(self, number: float) -> float:
        """Return the first process's number: clocks differ, and decisions must not."""
        told = torch.tensor([number], dtype=torch.float64)
        self.same([told])
        return float(told)
