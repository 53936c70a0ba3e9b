"""Find the weights of the language model on recordings that nothing was trained on.

The acoustic model hears each recording once; then every pair of weights decodes what it heard,
with blanks as likely as the model says or otherwise (`recipes.english.finish` makes them so).

    python -m recipes.english.language_model_tune models/english-offline-asr-bls-ensemble \
        held_out/manifest.jsonl --lm-weights 0.4 0.8 1.2 --word-scores 0 0.5 1 --blanks 0 -0.7
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from recipes.evaluate_server import read_manifest, wav
from recipes.word_errors import distance
from riva_speech.asr.ctc import read
from riva_speech.asr.flashlight import FlashlightDecoding
from riva_speech.asr.greedy import GreedyDecoding
from riva_speech.asr.loading import LANGUAGE_MODEL_FILE, LEXICON_FILE, load_recognizer
from riva_speech.asr.offline import OfflineRecognizer
from riva_speech.audio.stream import DeclaredFormat, decode_all
from riva_speech.repository import VERSION
from riva_speech.text.lexicon import Lexicon

if TYPE_CHECKING:
    from collections.abc import Sequence

    from recipes.evaluate_server import Clip
    from riva_speech.asr.acoustic import LogProbs
    from riva_speech.asr.ctc import Decoding


def hear(recognizer: OfflineRecognizer, clips: Sequence[Clip]) -> list[LogProbs]:
    """Return the acoustic model's output for every recording."""
    rate = recognizer.config.acoustic.features.sample_rate
    samples = (decode_all(wav(clip.audio), DeclaredFormat(), rate) for clip in clips)
    return [recognizer.log_probs(recognizer.features(one)) for one in samples]


def weighed(heard: Sequence[LogProbs], blank: int, nats: float) -> list[LogProbs]:
    """Return log-probabilities, [steps, tokens] each, with so many nats added for blanks."""
    found = []
    for one in heard:
        scores = one.copy()
        scores[:, blank] += nats
        found.append(scores - np.logaddexp.reduce(scores, axis=1, keepdims=True))
    return found


def word_errors(decoding: Decoding, clips: Sequence[Clip], heard: Sequence[LogProbs]) -> int:
    """Count the word errors of one way of decoding."""
    errors = 0
    for clip, log_probs in zip(clips, heard, strict=True):
        decoder = decoding.start()
        decoder.accept(read(decoding, decoder, log_probs))
        (best,) = decoder.end()
        errors += distance(clip.text.split(), best.text.split())
    return errors


def tune(options: argparse.Namespace) -> None:
    """Print the word error rate of each weight of blanks and pair of weights."""
    recognizer = load_recognizer(options.pipeline)
    assert isinstance(recognizer, OfflineRecognizer)
    assert isinstance(recognizer.decoding, FlashlightDecoding)
    clips = [clip for path in options.manifests for clip in read_manifest(path)]
    if options.only:
        wanted = set(options.only.read_text().split())
        clips = [clip for clip in clips if clip.audio.name in wanted]
    heard = hear(recognizer, clips)
    total = sum(len(clip.text.split()) for clip in clips)
    vocabulary = recognizer.decoding.vocabulary
    greedy = word_errors(GreedyDecoding(vocabulary), clips, heard)
    print(f"greedy {100 * greedy / total:.2f} % of {total} words")
    version = options.pipeline / VERSION
    lexicon = Lexicon.load(version / LEXICON_FILE, vocabulary)
    for blank in options.blanks:
        said = weighed(heard, vocabulary.blank, blank)
        for weight, score in product(options.lm_weights, options.word_scores):
            config = replace(
                recognizer.config.decoder.flashlight,
                lm_weight=weight,
                word_insertion_score=score,
                beam_size=options.beam_size,
            )
            way = FlashlightDecoding(vocabulary, config, lexicon, version / LANGUAGE_MODEL_FILE)
            errors = word_errors(way, clips, said)
            print(f"{blank:g} {weight:g} {score:g} {100 * errors / total:.2f} %", flush=True)


def main() -> None:
    """Read the command line and search."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("pipeline", type=Path, help="a deployed offline pipeline's folder")
    parser.add_argument("manifests", type=Path, nargs="+")
    parser.add_argument("--only", type=Path, help="names of the recordings to use, one a line")
    parser.add_argument("--lm-weights", type=float, nargs="+", default=[0.4, 0.8, 1.2, 1.6])
    parser.add_argument("--word-scores", type=float, nargs="+", default=[-0.5, 0.0, 0.5, 1.0])
    parser.add_argument("--blanks", type=float, nargs="+", default=[0.0], help="nats to add")
    parser.add_argument("--beam-size", type=int, default=64, help="paths kept after a step")
    tune(parser.parse_args())


if __name__ == "__main__":
    main()
