"""The language model of the English recogniser: its text, its words, and KenLM's programs.

    python -m recipes.english.language_model text work/lm SENTENCES.tsv.gz \
        --transcripts train/manifest.jsonl --exclude dev/*/manifest.jsonl
    python -m recipes.english.language_model train work/lm --kenlm kenlm/build/bin

`language_model.md` says how KenLM is built and what was tried.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import zlib
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from recipes.english.leaks import Heldout
from recipes.english.texts import REFUSED_SOURCES, read_sentences, split, spoken

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

TEXT, HELD_OUT, WORDS = "text.txt", "held_out.txt", "words.txt"
ARPA, BINARY = "model.arpa", "model.bin"
# Initials and what is left of abbreviations are no words.
LONE_LETTERS = frozenset("aio")
# What people read aloud is what recognisers are asked for, and the smallest part of the text.
READ_SPEECH = ("ljspeech_text", "libritts_text")
# One sentence in so many is kept apart, to measure perplexity on.
HELD_OUT_SHARE = 100


def transcripts(manifests: Iterable[Path]) -> Iterator[tuple[str, str]]:
    """Return the name of each recording for training, and what is said in it."""
    for manifest in manifests:
        for row in map(json.loads, manifest.read_text(encoding="utf-8").splitlines()):
            yield row["audio_filepath"], row["text"]


def permitted(lines: Iterable[str], held: Heldout) -> list[str]:
    """Return each line once, without those that share words with what is held out."""
    return [line for line in dict.fromkeys(lines) if line and not held.shares(line)]


def is_held_out(line: str) -> bool:
    """Say whether a line is for measuring; the same lines are in every run."""
    return zlib.crc32(line.encode()) % HELD_OUT_SHARE == 0


def vocabulary(lines: Iterable[str], least: int) -> list[str]:
    """Return the words said at least so often, the most frequent first."""
    counts = Counter(word for line in lines for word in line.split())
    return [
        word
        for word, count in sorted(counts.items(), key=lambda entry: (-entry[1], entry[0]))
        if count >= least and (len(word) > 1 or word in LONE_LETTERS)
    ]


def other_words(path: Path, known: Iterable[str]) -> list[str]:
    """Return the words of a list, one a line, in lower case, that are not known yet."""
    listed = dict.fromkeys(line.strip().lower() for line in path.read_text("utf-8").splitlines())
    fit = (word for word in listed if spoken(word) == word and len(word) > 1)
    return sorted(set(fit).difference(known))


def gather(options: argparse.Namespace) -> tuple[list[str], list[str], set[str]]:
    """Return the lines that may be learnt from, running texts apart, and which count twice.

    What the development lists say is left out, and so is what the recordings say that weights are
    tuned on, from wherever it comes.
    """
    tuned_on = frozenset(options.held_out.read_text().split()) if options.held_out else frozenset()
    said = list(transcripts(options.transcripts))
    unheard = [text for _, text in transcripts(options.exclude)]
    held = Heldout.of([*unheard, *(text for name, text in said if name in tuned_on)])
    sentences = [s for s in read_sentences(options.sentences) if s.source not in REFUSED_SOURCES]
    read = [text for _, text in said]
    twice = {s.spoken for s in sentences if s.source in options.twice}.union(read)
    running = [
        line for path in options.running for line in split(path.read_text("utf-8").splitlines())
    ]
    lines = permitted([*(sentence.spoken for sentence in sentences), *read], held)
    return lines, permitted(running, held), twice


def write_text(options: argparse.Namespace) -> None:
    """Write the text to learn from, the text to measure on, and the words."""
    lines, running, twice = gather(options)
    kept = [line for line in lines if not is_held_out(line)]
    weighed = [line for one in kept for line in [one] * (1 + (one in twice))]
    options.folder.mkdir(parents=True, exist_ok=True)
    _write(options.folder / TEXT, [*weighed, *running])
    _write(options.folder / HELD_OUT, [line for line in lines if is_held_out(line)])
    lent = vocabulary(running, options.least_running)
    words = dict.fromkeys([*vocabulary(kept, options.least), *lent])
    more = other_words(options.words, words) if options.words else []
    _write(options.folder / WORDS, [*words, *more])
    total = sum(len(line.split()) for line in [*kept, *running])
    print(
        f"{len(kept)} sentences and {len(running)} of running text, {total} words, "
        f"{len(words)} different; {len(more)} others"
    )


def _write(path: Path, lines: Iterable[str]) -> None:
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def train(options: argparse.Namespace) -> None:
    """Count, smooth, prune and quantise with KenLM; print the perplexity on the held-out text."""
    folder: Path = options.folder
    words = folder / f"{WORDS}.line"
    words.write_text(" ".join((folder / WORDS).read_text(encoding="utf-8").split()))
    estimate = [options.kenlm / "lmplz", "-o", str(len(options.prune)), "--discount_fallback"]
    estimate += ["--prune", *map(str, options.prune), "--limit_vocab_file", words, "-S", "2G"]
    estimate += ["--text", folder / TEXT, "--arpa", folder / ARPA]
    subprocess.run(estimate, check=True)
    pack = [options.kenlm / "build_binary", "-q", "4", "-b", "4", "-a", "64", "-s"]
    subprocess.run([*pack, "trie", folder / ARPA, folder / BINARY], check=True)
    with (folder / HELD_OUT).open() as text:
        measure = [options.kenlm / "query", "-v", "summary", folder / BINARY]
        subprocess.run(measure, check=True, stdin=text)
    print(f"{folder / BINARY}: {(folder / BINARY).stat().st_size} bytes")


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    steps = parser.add_subparsers(required=True)
    text = steps.add_parser("text", help="choose sentences and words")
    text.set_defaults(run=write_text)
    text.add_argument("folder", type=Path, help="what to write into")
    text.add_argument("sentences", type=Path, help="source<tab>sentence lines, gzipped")
    text.add_argument("--transcripts", type=Path, nargs="*", default=[], help="NeMo manifests")
    text.add_argument("--held-out", type=Path, help="audio paths in them that are left out")
    text.add_argument("--exclude", type=Path, nargs="+", required=True, help="development lists")
    text.add_argument("--twice", nargs="*", default=READ_SPEECH, help="sources that count twice")
    text.add_argument("--least", type=int, default=1, help="how often a word must be said")
    text.add_argument(
        "--running", type=Path, nargs="*", default=[], help="running texts, a paragraph a line"
    )
    text.add_argument(
        "--least-running", type=int, default=3, help="the same for words of those texts alone"
    )
    text.add_argument("--words", type=Path, help="more words, that the text lacks, one a line")
    model = steps.add_parser("train", help="make the model of them")
    model.set_defaults(run=train)
    model.add_argument("folder", type=Path, help="where the text lies")
    model.add_argument("--kenlm", type=Path, required=True, help="folder of KenLM's programs")
    model.add_argument("--prune", type=int, nargs="+", default=[0, 1, 1], help="for each order, "
                       "n-grams counted this often or less are dropped")  # fmt: skip
    return parser.parse_args()


def main() -> None:
    """Do a step."""
    options = parse()
    options.run(options)


if __name__ == "__main__":
    main()
