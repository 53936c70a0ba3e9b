"""One way of recognising a batch of utterances, in a process of its own.

    python -m benchmarks.offline_worker WAY FOLDER COUNT [--sorted N]

Loads, recognises the batch once, writes a line, and then does it again for every line that it
reads, answering with the seconds that it took. WAY is pipeline (ours, without gRPC), onnx_asr,
sherpa_onnx or nemo. With --sorted, all but ours are given N utterances of like length at a time.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.processes import THREADS
from benchmarks.utterances import RATE, batch

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from riva_speech.audio.features import Samples

    Recognise = Callable[[Sequence[Samples]], object]


def pipeline(folder: Path) -> Recognise:
    """Return our pipeline with its scheduler, as the server uses it."""
    import asyncio  # each way imports what it needs, and nothing else's
    from concurrent.futures import ThreadPoolExecutor

    from riva_speech.asr.options import NOTHING_ASKED
    from riva_speech.server.grpc_server import load_and_warm_up
    from riva_speech.server.metrics import Metrics
    from riva_speech.server.options import ServerOptions
    from riva_speech.server.registry import Wanted
    from riva_speech.server.scheduling import Scheduler
    from riva_speech.sessions.opening import opener

    options = ServerOptions("", folder, threads=THREADS)
    registry = load_and_warm_up(folder, opener(options.threads_a_run))
    recognizer = registry.offline(Wanted("", "", RATE))
    pool = ThreadPoolExecutor(THREADS)
    scheduler = Scheduler(registry.recognizers, pool, options.limits, Metrics())

    async def recognise(utterances: Sequence[Samples]) -> list[Any]:
        """Have all utterances in the scheduler at once, as a server has."""
        forever = float("inf")
        return await asyncio.gather(
            *(scheduler.recognize(recognizer, one, NOTHING_ASKED, forever) for one in utterances)
        )

    return lambda utterances: asyncio.run(recognise(utterances))


def onnx_asr(folder: Path) -> Recognise:
    """Return onnx-asr, which runs the whole batch at once."""
    import onnx_asr as peer
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = THREADS
    model: Any = peer.load_model("nemo-conformer-ctc", folder, sess_options=options)
    return lambda utterances: model.recognize(list(utterances), sample_rate=RATE)


def sherpa_onnx(folder: Path) -> Recognise:
    """Return sherpa-onnx, which decodes the streams of the batch in one call."""
    import sherpa_onnx as peer

    recogniser: Any = peer.OfflineRecognizer.from_nemo_ctc(
        model=str(folder / "model.onnx"), tokens=str(folder / "tokens.txt"), num_threads=THREADS
    )

    def recognise(utterances: Sequence[Samples]) -> list[str]:
        """Decode all utterances in one call."""
        streams = [recogniser.create_stream() for _ in utterances]
        for stream, samples in zip(streams, utterances, strict=True):
            stream.accept_waveform(RATE, samples)
        recogniser.decode_streams(streams)
        return [stream.result.text for stream in streams]

    return recognise


def nemo(checkpoint: Path) -> Recognise:
    """Return NeMo on torch, with the whole batch at once."""
    import torch
    from nemo.collections.asr.models import ASRModel

    torch.set_num_threads(THREADS)
    model: Any = ASRModel.restore_from(str(checkpoint), map_location="cpu").eval()

    def recognise(utterances: Sequence[Samples]) -> object:
        """Transcribe all utterances as one batch."""
        with torch.inference_mode():
            return model.transcribe(list(utterances), batch_size=len(utterances), verbose=False)

    return recognise


WAYS = {way.__name__: way for way in (pipeline, onnx_asr, sherpa_onnx, nemo)}


def in_pieces(recognise: Recognise, size: int) -> Recognise:
    """Return what recognises ``size`` utterances at a time, the shortest first; 0 for all."""
    if not size:
        return recognise

    def recognise_all(utterances: Sequence[Samples]) -> list[object]:
        """Sort, and recognise piece after piece."""
        each = sorted(utterances, key=len)
        return [recognise(each[begin : begin + size]) for begin in range(0, len(each), size)]

    return recognise_all


def samples(data: bytes) -> Samples:
    """Return 16-bit samples as floats in [-1, 1]."""
    return np.frombuffer(data, np.int16).astype(np.float32) / np.float32(32768)


def main() -> None:
    """Answer lines."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("way", choices=WAYS, metavar="WAY", help=f"of {', '.join(WAYS)}")
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="of the model")
    parser.add_argument("count", type=int, metavar="COUNT", help="of utterances")
    parser.add_argument("--sorted", type=int, default=0, metavar="N", help="of like length at once")
    chosen = parser.parse_args()
    answers, sys.stdout = sys.stdout, sys.stderr
    size = 0 if chosen.way == pipeline.__name__ else chosen.sorted
    recognise = in_pieces(WAYS[chosen.way](chosen.folder), size)
    utterances = [samples(one) for one in batch(chosen.count)]
    recognise(utterances)
    answers.write("ready\n")
    answers.flush()
    for _ in sys.stdin:
        began = time.perf_counter()
        recognise(utterances)
        answers.write(f"{time.perf_counter() - began}\n")
        answers.flush()


if __name__ == "__main__":
    main()
