"""Try a model on lists of recordings: greedy, offline, at each of its look-aheads."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, TypeAlias

import soundfile
import torch

from recipes.word_errors import distance

if TYPE_CHECKING:
    from pathlib import Path

Tensor: TypeAlias = Any
BATCH = 50


def report(net: Any, lists: list[Path], device: str) -> None:
    """Print word errors of each list at each look-ahead."""
    net.eval()
    for path in lists:
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        audio = [soundfile.read(path.parent / row["audio_filepath"], dtype="float32")[0]
                 for row in rows]  # fmt: skip
        for context in net.encoder.att_context_size_all:
            net.encoder.set_default_att_context_size(list(context))
            with torch.inference_mode():
                said = transcribe(net, audio, device)
            pairs = [
                (row["text"].split(), text.split()) for row, text in zip(rows, said, strict=True)
            ]
            errors = sum(distance(right, heard) for right, heard in pairs)
            total = sum(len(right) for right, _ in pairs)
            print(f"    {path.parent.name} {context}: {100 * errors / total:.2f} %", flush=True)
        for row, text in list(zip(rows, said, strict=True))[:2]:
            print(f"        {row['text']!r}\n        {text!r}", flush=True)
    net.encoder.set_default_att_context_size(list(net.encoder.att_context_size_all[0]))


def transcribe(net: Any, audio: list[Any], device: str) -> list[str]:
    """Return what is heard in recordings, in batches, by greedy decoding."""
    order = sorted(range(len(audio)), key=lambda number: len(audio[number]))
    texts = [""] * len(audio)
    for start in range(0, len(order), BATCH):
        chosen = order[start : start + BATCH]
        pieces = [torch.from_numpy(audio[number]) for number in chosen]
        lengths = torch.tensor([len(piece) for piece in pieces], device=device)
        signal = torch.nn.utils.rnn.pad_sequence(pieces, batch_first=True).to(device)
        features, frames = net.preprocessor(input_signal=signal, length=lengths)
        encoded, steps = net.encoder(audio_signal=features, length=frames)
        best = net.decoder(encoder_output=encoded).argmax(-1).cpu()
        for number, row, count in zip(chosen, best, steps.tolist(), strict=True):
            kept = torch.unique_consecutive(row[:count]).tolist()
            blank = net.decoder.num_classes_with_blank - 1
            texts[number] = net.tokenizer.ids_to_text([one for one in kept if one != blank])
    return texts
