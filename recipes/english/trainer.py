"""One step of training: speech is spoiled and heard, losses are judged, weights changed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

import torch
from torch.nn import functional

from recipes.english import model, spoil

if TYPE_CHECKING:
    from recipes.english.crew import Crew
    from recipes.english.pool import Batch

Tensor: TypeAlias = Any

EASY_LEVEL = 0.05
BLANK = model.PIECES
MIDDLE_LAYER = 5
MIDDLE_WEIGHT = 0.4
# What it costs to hear two spoiled copies of an utterance differently (CR-CTC, arXiv 2410.05101).
AGREEMENT_WEIGHT = 0.2
EMA = 0.999
WARPS = 33


class Trainer:
    """A model in bfloat16, its weights and their running mean in full precision, an optimiser."""

    def __init__(self, net: Any, crew: Crew) -> None:
        """Put the model on the crew's device, everywhere with the same weights."""
        self.crew, device = crew, crew.device
        self.net, self.device, self.on_gpu = net.to(device).train(), device, device != "cpu"
        net.preprocessor.featurizer.dither = 0.0
        self.parts = [one for one in net.parameters() if one.requires_grad]
        crew.same(one.data for one in self.parts)
        self.full = [one.detach().float().clone() for one in self.parts]
        self.mean = [one.clone() for one in self.full]
        self.row = torch.zeros(sum(one.numel() for one in self.full), device=device)
        pieces = self.row.split([one.numel() for one in self.full])
        self.gradients = [piece.view_as(one) for piece, one in zip(pieces, self.full, strict=True)]
        for one, gradient in zip(self.full, self.gradients, strict=True):
            one.grad = gradient
        self.rate = torch.zeros((), device=device)
        self.optimizer = torch.optim.AdamW(
            [{"params": [one for one in self.full if one.dim() > 1], "weight_decay": 2e-2},
             {"params": [one for one in self.full if one.dim() <= 1], "weight_decay": 0.0}],
            lr=self.rate, betas=(0.9, 0.98), fused=self.on_gpu)  # fmt: skip
        self.bank = spoil.warps(WARPS, model.MELS, device)
        self.middle: Tensor = None
        net.encoder.layers[MIDDLE_LAYER - 1].register_forward_hook(self._keep_middle)
        self.dropouts = [one for one in net.modules() if isinstance(one, torch.nn.Dropout)]
        self.shares = [one.p for one in self.dropouts]
        self.kind = torch.bfloat16 if self.on_gpu else torch.float32
        self.spoil = spoil.spoil
        net.encoder.to(self.kind)
        net.decoder.to(self.kind)
        self.update(self.gradients)  # at rate 0: makes the optimiser's state

    def _keep_middle(self, _: Any, __: Any, output: Tensor) -> None:
        self.middle = output

    def compile(self) -> None:
        """Fuse small operations, and let the GPU replay each layer's as one graph.

        A step is some 3,000 of them, which take longer to launch than to run.
        """
        for layer in self.net.encoder.layers:
            layer.forward = torch.compile(layer.forward, mode="reduce-overhead", dynamic=False)
        self.spoil = torch.compile(self.spoil, dynamic=False)

    def drop(self, *, easy: bool) -> None:
        """Drop nothing from easy batches."""
        for one, share in zip(self.dropouts, self.shares, strict=True):
            one.p = 0.0 if easy else share

    def hear(self, audio: Tensor, lengths: Tensor, *, clean: bool) -> list[Tensor]:
        """Return log-probabilities at the end and in the middle of the network."""
        with torch.no_grad():
            signal = self.spoil(audio) if not clean else spoil.at_level(audio, EASY_LEVEL)
            features, frames = self.net.preprocessor(input_signal=signal, length=lengths)
            if not clean:
                features = spoil.mask(spoil.warp(features, self.bank), frames)
            features = features.to(self.kind)
        encoded, _ = self.net.encoder(audio_signal=features, length=frames)
        scores = self.net.decoder.decoder_layers
        both = (encoded, self.middle.transpose(1, 2))
        return [scores(one).transpose(1, 2).float().log_softmax(-1) for one in both]

    def judge(
        self, heard: list[Tensor], batch: Batch, *, twice: bool
    ) -> tuple[Tensor, list[Tensor]]:
        """Return the loss for each piece said, and its derivatives by the log-probabilities.

        Args:
            heard: Log-probabilities at the end and in the middle, each [batch, steps, pieces].
            batch: What was said.
            twice: Whether the second half of the batch is the first half again, spoiled otherwise.
        """
        leaves = [one.detach().requires_grad_() for one in heard]
        steps, sizes = encoded_lengths(batch.lengths), tuple(batch.target_lengths.tolist())
        losses = [
            functional.ctc_loss(one.transpose(0, 1), batch.targets, tuple(steps.tolist()), sizes,
                                blank=BLANK, reduction="sum", zero_infinity=True)
            for one in leaves
        ]  # fmt: skip
        costs = losses
        if twice:
            costs = [loss + AGREEMENT_WEIGHT * disagreement(one, steps)
                     for loss, one in zip(losses, leaves, strict=True)]  # fmt: skip
        total = ((1 - MIDDLE_WEIGHT) * costs[0] + MIDDLE_WEIGHT * costs[1]) / sum(sizes)
        return losses[0].detach() / sum(sizes), list(torch.autograd.grad(total, leaves))

    def update(self, gradients: list[Tensor]) -> None:
        """Change the weights, but for gradients that are not numbers, and their running mean."""
        torch._foreach_copy_(self.gradients, gradients)
        self.crew.average(self.row)
        norm = self.row.norm()
        self.row *= (1 / (norm + 1e-6)).clamp(max=1.0)
        if self.on_gpu:
            self.optimizer.found_inf = (~torch.isfinite(norm)).float()
            self.optimizer.grad_scale = None
        self.optimizer.step()
        with torch.no_grad():
            torch._foreach_lerp_(self.mean, self.full, 1 - EMA)
            torch._foreach_copy_(self.parts, self.full)

    def step(self, batch: Batch, rate: float, *, clean: bool) -> Tensor:
        """Learn from a batch, or from two spoiled copies of it; return its loss for each piece."""
        torch.compiler.cudagraph_mark_step_begin()
        self.rate.fill_(rate)
        batch = batch if clean else batch.twice()
        heard = self.hear(batch.audio, batch.lengths.to(self.device), clean=clean)
        loss, derivatives = self.judge(heard, batch, twice=not clean)
        self.update(list(torch.autograd.grad(heard, self.parts, derivatives)))
        return loss

    def average_into(self, twin: Any) -> None:
        """Give another model, in full precision, the mean weights."""
        weights = [one for one in twin.parameters() if one.requires_grad]
        with torch.no_grad():
            torch._foreach_copy_(weights, self.mean)


def disagreement(heard: Tensor, steps: Tensor) -> Tensor:
    """Return how differently the two halves of a batch were heard.

    Each half learns from the other as it is (`CR-CTC <https://arxiv.org/abs/2410.05101>`_).

    Args:
        heard: Log-probabilities, [2 * batch, steps, pieces]; the second half is of the same speech.
        steps: How many steps each item has, [2 * batch].

    Returns:
        The Kullback-Leibler divergences of both ways, summed over the steps of all items, in nats.
    """
    first, second = heard.chunk(2)
    apart = sum(
        functional.kl_div(one, other.detach(), reduction="none", log_target=True).sum(-1)
        for one, other in ((first, second), (second, first))
    )
    there = torch.arange(heard.shape[1]) < steps[: len(first), None]
    return (apart * there.to(heard.device, non_blocking=True)).sum()


def encoded_lengths(samples: Tensor) -> Tensor:
    """Return how many steps the encoder makes of so many samples, on the CPU."""
    frames = samples // 160
    for _ in range(3):
        frames = frames // 2 + 1
    return frames
