"""Word errors of a `.nemo` file, offline and streaming, at each of its look-aheads."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recipes.corpus import Clip, read_audio, read_manifest
from recipes.quiet import restore
from recipes.word_errors import distance

if TYPE_CHECKING:
    from collections.abc import Callable

    Recognise = Callable[[list[Clip]], list[str]]

FRAME_MS = 80


def offline(model: Any, clips: list[Clip]) -> list[str]:
    """Let NeMo's own `transcribe` hear the clips."""
    paths = [str(clip.audio) for clip in clips]
    return [said.text for said in model.transcribe(paths, batch_size=16, verbose=False)]


def streaming(model: Any, clips: list[Clip]) -> list[str]:
    """Let NeMo's cache-aware streaming hear the clips, one by one."""
    import torch

    model.eval()  # `transcribe` leaves it in training mode
    with torch.inference_mode():
        return [stream(model, clip) for clip in clips]


def stream(model: Any, clip: Clip) -> str:
    """Stream one clip, chunk by chunk."""
    from nemo.collections.asr.parts.utils.streaming_utils import (
        CacheAwareStreamingAudioBuffer,
    )

    chunks = CacheAwareStreamingAudioBuffer(model)
    chunks.append_audio(read_audio(clip.audio))
    cache = model.encoder.get_initial_cache_state(batch_size=1)
    extra = model.encoder.streaming_cfg.drop_extra_pre_encoded
    tokens, texts = None, [""]
    for number, (chunk, length) in enumerate(chunks):
        tokens, texts, *cache, _ = model.conformer_stream_step(
            processed_signal=chunk,
            processed_signal_length=length,
            cache_last_channel=cache[0],
            cache_last_time=cache[1],
            cache_last_channel_len=cache[2],
            keep_all_outputs=chunks.is_buffer_empty(),
            previous_pred_out=tokens,
            drop_extra_pre_encoded=extra if number else 0,
        )
    return str(getattr(texts[0], "text", texts[0]))


def report(name: str, clips: list[Clip], heard: list[str], *, show: bool) -> None:
    """Print one line of the result, and the errors when asked for."""
    pairs = [(clip, text.split()) for clip, text in zip(clips, heard, strict=True)]
    errors = sum(distance(clip.words, words) for clip, words in pairs)
    total = sum(len(clip.words) for clip in clips)
    exact = sum(clip.words == words for clip, words in pairs)
    print(f"{name:<40} {100 * errors / total:6.2f} %  {errors:4} of {total:5} words, "
          f"{exact} of {len(clips)} exact", flush=True)  # fmt: skip
    wrong = [(clip, words) for clip, words in pairs if clip.words != words]
    for clip, words in wrong if show else []:
        print(f"    {clip.audio.name} ({clip.speaker}): {clip.text!r} heard as {' '.join(words)!r}")


def evaluate(options: argparse.Namespace) -> None:
    """Try every manifest, at every look-ahead, in both ways."""
    import torch

    torch.set_num_threads(1)  # sharing out work this small takes longer than the work
    model = restore(options.checkpoint)
    for manifest in options.manifests:
        clips = read_manifest(manifest)
        for context in model.cfg.encoder.att_context_size:
            model.encoder.set_default_att_context_size(list(context))
            ahead = f"{context[1] * FRAME_MS} ms"
            ways: dict[str, Recognise] = {
                "offline": lambda clips: offline(model, clips),
                "streaming": lambda clips: streaming(model, clips),
            }
            for way, recognise in ways.items():
                name = f"{manifest.parent.name}/{manifest.stem}, {way}, {ahead} ahead"
                report(name, clips, recognise(clips), show=options.errors)


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint", type=Path, help="the .nemo file")
    parser.add_argument("manifests", type=Path, nargs="+")
    parser.add_argument("--errors", action="store_true", help="print what was misheard")
    return parser.parse_args()


def main() -> None:
    """Evaluate."""
    evaluate(parse())


if __name__ == "__main__":
    main()
