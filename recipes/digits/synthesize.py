"""Step 1: say digits with speech synthesisers, in many voices."""

# ruff: noqa: RUF001 - phonemes look like letters
# ruff: noqa: SIM905 - long lists of names read best as text
from __future__ import annotations

import argparse
import io
import random
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import soundfile

from recipes.corpus import Clip, resample, write_audio, write_manifest
from recipes.digits.words import DIGITS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from recipes.corpus import Samples

ACCENTS = (
    "en-us en-gb en-gb-scotland en-gb-x-rp en-gb-x-gbclan en-gb-x-gbcwmd en-029 en-us-nyc"
).split()
VARIANTS = (
    "adam Alex Alicia Andrea Andy Annie antonio aunty belinda benjamin boris caleb david Denis "
    "Diogo ed edward edward2 f1 f2 f3 f4 f5 Gene Gene2 grandma grandpa gustave Henrique Hugo iven "
    "iven2 Jacky john klatt klatt2 klatt4 Lee linda m1 m2 m3 m4 m5 m6 m7 m8 marcelo Marco Mario "
    "max Michael michel miguel Mike norbert pablo paul pedro quincy rob robert sandro shelby steph "
    "steph2 travis victor zac"
).split()

# The digits in the phoneme alphabet of Kokoro, and that alphabet's numbers for the symbols used.
PHONEMES = dict(
    zip(DIGITS, "zˈɪɹO wˈʌn tˈu θɹˈi fˈɔɹ fˈIv sˈɪks sˈɛvən ˈAt nˈIn".split(), strict=True)
)
SYMBOLS = {
    ",": 3, ".": 4, " ": 16, "A": 24, "I": 25, "O": 31, "f": 48, "i": 51, "k": 53, "n": 56,
    "s": 61, "t": 62, "u": 63, "v": 64, "w": 65, "z": 68, "ɔ": 76, "ə": 83, "ɛ": 86, "ɪ": 102,
    "θ": 119, "ɹ": 123, "ʌ": 138, "ˈ": 156,
}  # fmt: skip
KOKORO_RATE = 24_000
SAMPLE_VOICE = "af_heart"
SAMPLE_SPEED = 0.85
SAMPLE = (["four", "one", "seven"], ["two", "nine", "six"])
LONGEST = 7


class Voice(NamedTuple):
    """A named way to say digits: (words, what separates them) to samples."""

    name: str
    say: Callable[[list[str], str], Samples]


class Kokoro:
    """The Kokoro-82M synthesiser as an ONNX graph and a table of voices."""

    def __init__(self, graph: Path, voices: Path) -> None:
        import onnxruntime  # only this synthesiser needs it

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self._session: Any = onnxruntime.InferenceSession(str(graph), options)
        self._styles = {name: style.astype(np.float32) for name, style in np.load(voices).items()}

    def train_voices(self) -> list[str]:
        """List every voice but the sample's."""
        return sorted(set(self._styles) - {SAMPLE_VOICE})

    def say(self, words: list[str], gap: str, mix: dict[str, float], speed: float) -> Samples:
        """Say the words in a weighted mix of voices, `gap` between them."""
        phonemes = gap.join(PHONEMES[word] for word in words) + "."
        ids = [0, *(SYMBOLS[symbol] for symbol in phonemes), 0]
        style = sum(weight * self._styles[name][len(phonemes)] for name, weight in mix.items())
        feed = {
            "tokens": np.array([ids]),
            "style": np.asarray(style, np.float32).reshape(1, -1),
            "speed": np.array([speed], np.float32),
        }
        audio = np.asarray(self._session.run(None, feed)[0], np.float32).reshape(-1)
        return resample(audio, KOKORO_RATE)


def espeak_voice(rng: random.Random) -> Voice:
    """Draw an accent, variant, speed and pitch of espeak-ng."""
    name = f"{rng.choice(ACCENTS)}+{rng.choice(VARIANTS)}"
    speed, pitch = rng.randint(110, 230), rng.randint(15, 85)
    flags = ["-v", name, "-s", str(speed), "-p", str(pitch)]

    def say(words: list[str], gap: str) -> Samples:
        """Return the words as samples in [-1, 1] at the rate of the corpus."""
        command = ["espeak-ng", *flags, "--stdout", gap.join(words)]
        wav = subprocess.run(command, check=True, capture_output=True).stdout
        samples, rate = soundfile.read(io.BytesIO(wav), dtype="float32")
        return resample(samples, rate)

    return Voice(f"espeak {name} {speed} {pitch}", say)


def kokoro_voice(kokoro: Kokoro, rng: random.Random) -> Voice:
    """Draw a mix of one to three Kokoro voices, and a speed."""
    names = rng.sample(kokoro.train_voices(), rng.randint(1, 3))
    parts = [rng.random() + 0.1 for _ in names]
    mix = {name: part / sum(parts) for name, part in zip(names, parts, strict=True)}
    speed = rng.uniform(0.8, 1.4)
    return Voice(
        f"kokoro {'+'.join(names)} {speed:.2f}",
        lambda words, gap: kokoro.say(words, gap, mix, speed),
    )


def record(voice: Voice, clips: int, folder: Path, rng: random.Random) -> Iterator[Clip]:
    """Let a voice say random strings of digits."""
    for number in range(clips):
        words = rng.choices(DIGITS, k=rng.choice((1, 1, 2, 3, 4, 5, 6, LONGEST)))
        samples = voice.say(words, rng.choice((" ", " ", ", ")))
        audio = folder / f"{voice.name.replace(' ', '_')}_{number}.ogg"
        yield Clip(audio, " ".join(words), voice.name, write_audio(audio, samples))


def corpus(new_voice: Callable[[random.Random], Voice], options: argparse.Namespace) -> None:
    """Write clips in random voices, and their manifest."""
    rng = random.Random(options.seed)
    folder: Path = options.out
    clips = [
        clip
        for _ in range(options.voices)
        for clip in record(new_voice(rng), options.clips, folder / "audio", rng)
    ]
    write_manifest(folder / "manifest.jsonl", clips)
    print(f"{len(clips)} clips, {sum(clip.duration for clip in clips) / 60:.1f} min in {folder}")


def sample(kokoro: Kokoro, out: Path) -> None:
    """Write the sample that the quick start ships, in a voice that no training clip uses."""
    groups = [kokoro.say(group, " ", {SAMPLE_VOICE: 1.0}, SAMPLE_SPEED) for group in SAMPLE]
    samples = np.concatenate(groups)
    duration = write_audio(out, 0.5 * samples / np.abs(samples).max())
    print(f"{out}: {duration} s, {' '.join(map(' '.join, SAMPLE))!r}")


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("espeak", "kokoro", "sample"))
    parser.add_argument("out", type=Path, help="folder of the clips; for `sample`, the WAV file")
    parser.add_argument("--voices", type=int, default=100, help="how many random voices")
    parser.add_argument("--clips", type=int, default=10, help="how many clips each voice says")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--kokoro-graph", type=Path, help="Kokoro-82M as ONNX")
    parser.add_argument("--kokoro-voices", type=Path, help="its voices, as .npz")
    return parser.parse_args()


def main() -> None:
    """Run one of the three syntheses."""
    options = parse()
    if options.what == "espeak":
        corpus(espeak_voice, options)
        return
    kokoro = Kokoro(options.kokoro_graph, options.kokoro_voices)
    if options.what == "sample":
        sample(kokoro, options.out)
    else:
        corpus(lambda rng: kokoro_voice(kokoro, rng), options)


if __name__ == "__main__":
    main()
