"""Step 5: make the checkpoint, of which the rest is built, from those of a training.

Their mean hears strangers better than any of them does. Speech that was heard twice and differently
(`trainer.py`) leaves the model undecided in favour of blanks: a search with a language model loses
words to them, unless blanks are made less likely.

    python -m recipes.english.finish work/tokenizer work/english.nemo work/t-5.pt work/t.pt \
        --blank -0.7
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from recipes.english import model

if TYPE_CHECKING:
    from collections.abc import Sequence


def take_mean(net: Any, checkpoints: Sequence[Path]) -> None:
    """Give a model the mean of the weights of checkpoints."""
    wanted = dict(net.named_parameters())
    sums = {name: torch.zeros_like(one) for name, one in wanted.items()}
    for path in checkpoints:
        model.load_weights(net, path)
        for name in sums:
            sums[name] += wanted[name].detach()
    with torch.no_grad():
        for name, total in sums.items():
            wanted[name].copy_(total / len(checkpoints))


def weigh_blank(net: Any, nats: float) -> None:
    """Add so many nats to what the model thinks of blanks, before it normalises."""
    with torch.no_grad():
        net.decoder.decoder_layers[0].bias[model.PIECES] += nats


def main() -> None:
    """Write the checkpoint."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("tokenizer", type=Path, help="folder of the tokenizer")
    parser.add_argument("out", type=Path, help="the .nemo file to write")
    parser.add_argument("checkpoints", type=Path, nargs="+", help=".pt files of a training")
    parser.add_argument("--blank", type=float, default=0.0, help="nats to add for blanks")
    options = parser.parse_args()
    net = model.build(options.tokenizer)
    take_mean(net, options.checkpoints)
    weigh_blank(net, options.blank)
    model.save(net, options.out)


if __name__ == "__main__":
    main()
