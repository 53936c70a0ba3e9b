"""Steps 1 and 2: choose the sentences to be said, learn the pieces of words, pack real speech."""

from __future__ import annotations

import argparse
import gzip
import json
import random
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from recipes.corpus import read_audio
from recipes.english.leaks import Heldout
from recipes.english.model import train_tokenizer
from recipes.english.shards import to_int16, write_shard
from recipes.english.texts import REFUSED_SOURCES, numbered, read_sentences, readable

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

# Books and read speech are what the recogniser is asked for first.
WEIGHTS = {"ljspeech_text": 4.0, "libritts_text": 4.0, "standard_ebooks": 1.2}
OTHER_WEIGHT = 0.8
COMMAND_WEIGHT = 0.4
COMMANDS = ("clinc150", "slurp", "snips_nlu", "taskmaster4")
# One utterance in so many is kept apart, to tune the language model's weight on.
KEPT_APART = {"librispeech": 10, "ljspeech": 10, "speechocean": 26}
CORPORA = {"speechocean762": "speechocean", "LibriSpeech": "librispeech", "LJSpeech": "ljspeech"}


def heldout(lists: Iterable[Path]) -> Heldout:
    """Read what is said in development lists."""
    return Heldout.of(str(row["text"]) for path in lists for row in rows(path))


def rows(manifest: Path) -> list[dict[str, Any]]:
    """Read a manifest."""
    return [json.loads(line) for line in manifest.read_text(encoding="utf-8").splitlines()]


def sentences(options: argparse.Namespace) -> None:
    """Write the permitted sentences with their tokens, most wanted first, and the tokenizer."""
    held = heldout(options.lists)
    table = list(permitted(options.sentences, options.tokens, held))
    rng = random.Random(options.seed)
    table.sort(key=lambda row: rng.expovariate(weight(row[0])))
    chosen = table[: options.count]
    texts = [text for _, text, _ in chosen]
    options.out.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(
        options.out / "sentences.npz",
        texts=np.frombuffer("\n".join(texts).encode(), np.uint8),
        ids=np.concatenate([np.array(ids, np.uint8) for _, _, ids in chosen]),
        counts=np.array([len(ids) for _, _, ids in chosen], np.uint16),
    )
    train_tokenizer(options.out / "tokenizer", (text for _, text, _ in table))
    print(f"{len(chosen)} of {len(table)} permitted sentences")


def permitted(text: Path, tokens: Path, held: Heldout) -> Iterator[tuple[str, str, list[int]]]:
    """Return source, words and tokens of what may be learnt from."""
    order = numbered(read_sentences(text))
    with gzip.open(tokens, "rt", encoding="utf-8") as lines:
        for line in lines:
            row = json.loads(line)
            one = order[row["id"]]
            words = one.spoken
            if one.source in REFUSED_SOURCES or not readable(one.written) or held.shares(words):
                continue
            yield one.source, words, row["ids"]


def weight(source: str) -> float:
    """Say how much a source's sentences are wanted."""
    if source in COMMANDS:
        return COMMAND_WEIGHT
    return WEIGHTS.get(source, OTHER_WEIGHT)


def real(options: argparse.Namespace) -> None:
    """Pack recordings as shards, one a corpus, without what the development lists say."""
    held = heldout(options.lists)
    said: dict[str, list[tuple[str, Any]]] = {}
    left_out = 0
    apart = set(kept_apart(rows(options.manifest)))
    for row in rows(options.manifest):
        if row["audio_filepath"] in apart:
            continue
        if held.shares(row["text"]):
            left_out += 1
            continue
        samples = read_audio(options.manifest.parent / row["audio_filepath"])
        said.setdefault(corpus(row), []).append((row["text"], to_int16(samples)))
    for name, pairs in said.items():
        print(f"{name}: {write_shard(options.out, name, name, pairs):.2f} h", flush=True)
    print(f"{left_out} left out: they share words with a development list")


def corpus(row: dict[str, Any]) -> str:
    """Return the short name of the corpus that a recording is of."""
    return next(CORPORA[start] for start in CORPORA if row["source"].startswith(start))


def kept_apart(manifest: list[dict[str, Any]]) -> Iterator[str]:
    """Name the recordings that are neither for training nor for development."""
    seen: Counter[str] = Counter()
    for row in manifest:
        name = corpus(row)
        seen[name] += 1
        if seen[name] % KEPT_APART[name] == 0:
            yield row["audio_filepath"]


def apart(options: argparse.Namespace) -> None:
    """Write the names of the recordings that are kept apart."""
    names = list(kept_apart(rows(options.manifest)))
    options.out.write_text("".join(f"{name}\n" for name in names))
    print(f"{len(names)} recordings kept apart")


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    steps = parser.add_subparsers(required=True)
    text = steps.add_parser("sentences", help=sentences.__doc__)
    text.add_argument("sentences", type=Path, help="lines of source, tab, sentence; gzipped")
    text.add_argument("tokens", type=Path, help="Kokoro's tokens of them, as JSON lines; gzipped")
    text.add_argument("out", type=Path)
    text.add_argument("--count", type=int, default=240_000)
    text.add_argument("--seed", type=int, default=1)
    text.set_defaults(run=sentences)
    audio = steps.add_parser("real", help=real.__doc__)
    audio.add_argument("manifest", type=Path)
    audio.add_argument("out", type=Path, help="folder of shards")
    audio.set_defaults(run=real)
    names = steps.add_parser("apart", help=apart.__doc__)
    names.add_argument("manifest", type=Path)
    names.add_argument("out", type=Path, help="a name a line")
    names.set_defaults(run=apart)
    for step in (text, audio):
        step.add_argument("--lists", type=Path, nargs="+", required=True, help="held out")
    return parser.parse_args()


def main() -> None:
    """Run a step."""
    options = parse()
    options.run(options)


if __name__ == "__main__":
    main()
