"""The English recipe: what may be learnt from, the proof of it, and how batches are made."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from recipes.english.leaks import Heldout
from recipes.english.prove import fingerprint, likeness, shared_sound, shared_text, windows
from recipes.english.shards import read_shard, to_int16, write_shard
from recipes.english.texts import readable, split, spoken
from support.audio import babble

ROOT = Path(__file__).parents[2]
HELD = "the quick brown fox jumps over the lazy dog"


@given(st.text())
def test_spoken_text_is_letters_and_inner_apostrophes(written: str) -> None:
    """Nothing but a to z, single blanks, and apostrophes within words is left; it stays so."""
    words = spoken(written)
    assert set(words) <= set("abcdefghijklmnopqrstuvwxyz' ")
    assert words == " ".join(words.split())
    assert all(not word.startswith("'") and not word.endswith("'") for word in words.split())
    assert spoken(words) == words


def test_contractions_and_hyphens_are_said() -> None:
    """Apostrophes of either kind stay within words, quotes go, hyphens part words."""
    assert spoken("'Don\N{RIGHT SINGLE QUOTATION MARK}t,' she re-read") == "don't she re read"
    assert readable("He said: \N{LEFT DOUBLE QUOTATION MARK}no.\N{RIGHT DOUBLE QUOTATION MARK}")
    assert not readable("In 1984")


@pytest.mark.parametrize(
    ("text", "shared"),
    [
        (HELD, True),
        ("and then the quick brown fox jumps over it", True),
        ("the quick brown fox jumps and the lazy dog", False),
        ("yes", True),
        ("oh yes", False),
    ],
)
def test_a_leak_is_an_equal_text_or_six_shared_words(text: str, *, shared: bool) -> None:
    """Short texts leak only as a whole, longer ones by any six words in a row."""
    held = Heldout.of([HELD, "yes"])
    assert held.shares(text) is shared
    assert list(shared_text(held, [text])) == [text] * shared


def test_planted_sound_is_found(tmp_path: Path) -> None:
    """A development recording within a quieter training recording is named; others are not."""
    planted, other = babble(4.0, seed=1), babble(4.0, seed=2)
    noise = 0.002 * np.random.default_rng(0).standard_normal(16_000 * 9).astype(np.float32)
    training = noise.copy()
    training[16_000 * 3 + 320 : 16_000 * 3 + 320 + len(planted)] += 0.3 * planted
    soundfile.write(tmp_path / "planted.wav", planted, 16_000)
    soundfile.write(tmp_path / "other.wav", other, 16_000)
    paths = [tmp_path / "planted.wav", tmp_path / "other.wav"]
    found = list(shared_sound(paths, [babble(5.0, seed=3), training]))
    assert [one.partition(":")[0] for one in found] == [str(paths[0])]


def test_fingerprints_of_one_sound_are_alike_and_of_two_are_not() -> None:
    """Loudness changes no sign; different sound agrees in about half of them."""
    one, other = babble(6.0, seed=4), babble(6.0, seed=5)
    same = likeness(windows(fingerprint(one), 10), windows(fingerprint(0.2 * one), 1))
    different = likeness(windows(fingerprint(one), 10), windows(fingerprint(other), 1))
    assert same > 0.99
    assert different < 0.75


def test_a_shard_gives_back_what_was_written(tmp_path: Path) -> None:
    """Words, lengths and samples of a shard are those written, and no draft is left."""
    said = [("one", to_int16(babble(0.5, seed=1))), ("two", to_int16(babble(0.7, seed=2)))]
    hours = write_shard(tmp_path, "a", "espeak", said)
    shard = read_shard(tmp_path / "a.json")
    assert (shard.source, shard.texts) == ("espeak", ["one", "two"])
    assert shard.lengths == [len(samples) for _, samples in said]
    assert np.array_equal(shard.samples, np.concatenate([samples for _, samples in said]))
    assert hours == pytest.approx(1.2 / 3600, rel=0.01)
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".json", ".npy"]


def language_model_text(folder: Path, *options: str) -> tuple[Counter[str], list[str]]:
    """Choose text for the language model in a folder; return its lines and its words."""
    command = [sys.executable, "-m", "recipes.english.language_model", "text", "lm"]
    paths = os.pathsep.join([str(ROOT), str(ROOT / "images")])
    subprocess.run(
        [*command, "sentences.gz", *options],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": paths},
        check=True,
    )
    lines = (folder / "lm" / "text.txt").read_text().splitlines()
    return Counter(lines), (folder / "lm" / "words.txt").read_text().split()


def test_running_texts_lend_sentences_and_their_frequent_words(tmp_path: Path) -> None:
    """What is held out is not in them, and a word of theirs must be seen as often as is asked."""
    with gzip.open(tmp_path / "sentences.gz", "wt") as text:
        text.write("slurp\tone of ours\n")
    said = json.dumps({"audio_filepath": "0", "text": "this is held out"})
    (tmp_path / "dev").write_text(said)
    running = "A rare bird sang. Birds sang on. This is held out. On sang the birds.\n"
    (tmp_path / "running").write_text(running)
    options = ["--exclude", "dev", "--running", "running", "--least-running", "2"]

    lines, words = language_model_text(tmp_path, *options)

    assert set(lines) == {
        "one of ours",
        "a rare bird sang",
        "birds sang on",
        "on sang the birds",
    }
    assert words == ["of", "one", "ours", "sang", "birds", "on"]


def test_running_texts_are_split_into_sentences_that_are_read_as_written() -> None:
    """Titles end none; digits, headings of a word and what was quoted are seen to."""
    paragraph = '"Mr. Jay is here." He said so. In 1850 nobody was. Well. What is that to me?'

    assert list(split([paragraph])) == ["mr jay is here", "he said so", "what is that to me"]


def test_text_for_the_language_model_is_permitted(tmp_path: Path) -> None:
    """Nothing held out or share-alike is in it, read speech counts twice, listed words are last."""
    sentences = {"clinc150": "Yes.", "slurp": "oh yes", "clinc_wiki_sents": "share me alike"}
    sentences |= {"ljspeech_text": "Read aloud.", "libritts_text": "tune on it"}
    with gzip.open(tmp_path / "sentences.gz", "wt") as text:
        text.writelines(f"{source}\t{sentence}\n" for source, sentence in sentences.items())
    said = {"train": ["tune on it", "spoken once"], "dev": ["yes"]}
    for name, texts in said.items():
        rows = ({"audio_filepath": f"{i}", "text": one} for i, one in enumerate(texts))
        (tmp_path / name).write_text("\n".join(map(json.dumps, rows)))
    (tmp_path / "apart").write_text("0\n")
    (tmp_path / "listed").write_text("Aloud\nzebra's\nx\nr2d2\n")
    options = [
        "--transcripts",
        "train",
        "--held-out",
        "apart",
        "--exclude",
        "dev",
        "--words",
        "listed",
    ]
    lines, words = language_model_text(tmp_path, *options)
    assert lines == {"oh yes": 1, "read aloud": 2, "spoken once": 2}
    assert words[-1] == "zebra's"
    assert sorted(words[:-1]) == ["aloud", "oh", "once", "read", "spoken", "yes"]


@pytest.mark.nemo
def test_batches_hold_the_speech_and_its_words(tmp_path: Path) -> None:
    """Each batch is full length, its targets are those of its utterances, and silence ends it."""
    from recipes.english.pool import Pool  # noqa: PLC0415 - needs torch

    said = [(str(number), to_int16(babble(1 + number / 5, seed=number))) for number in range(8)]
    write_shard(tmp_path, "a", "kokoro", said)
    pool = Pool(0.01, {"kokoro": 1.0}, lambda texts: [[int(text)] for text in texts], "cpu")
    assert pool.add(read_shard(tmp_path / "a.json"))
    batch = pool.batch(5.0, 16, np.random.default_rng(0))
    assert batch.audio.shape == (16, 80_000)
    assert bool((batch.target_lengths >= 1).all())
    for audio, length in zip(batch.audio, batch.lengths.tolist(), strict=True):
        assert float(audio[:length].abs().max()) > 0.01
        assert float(audio[length:].abs().sum()) == 0


@pytest.mark.nemo
def test_halves_disagree_by_their_divergences_on_steps_that_there_are() -> None:
    """Both ways' divergences are summed, as PyTorch's are; what lies beyond an end is not."""
    import torch  # noqa: PLC0415 - optional
    from torch.distributions import Categorical, kl_divergence  # noqa: PLC0415 - as torch

    from recipes.english.trainer import disagreement  # noqa: PLC0415 - as torch

    heard = torch.randn(4, 5, 7).double().log_softmax(-1)
    first, second = (Categorical(logits=half) for half in heard.chunk(2))
    both = kl_divergence(first, second) + kl_divergence(second, first)
    found = disagreement(heard, torch.tensor([5, 3, 5, 3]))
    assert float(found) == pytest.approx(float(both[0].sum() + both[1, :3].sum()))
    same = heard[:2].repeat(2, 1, 1)
    assert float(disagreement(same, torch.tensor([5, 3, 5, 3]))) == pytest.approx(0)


@pytest.mark.nemo
def test_a_step_hears_each_item_twice(tmp_path: Path) -> None:
    """A batch twice has its items in the same order in both halves, with what is said in them."""
    from recipes.english.pool import Pool  # noqa: PLC0415 - needs torch

    said = [(str(number), to_int16(babble(2 + number / 5, seed=number))) for number in range(4)]
    write_shard(tmp_path, "a", "kokoro", said)
    pool = Pool(0.01, {"kokoro": 1.0}, lambda texts: [[int(text)] for text in texts], "cpu")
    pool.add(read_shard(tmp_path / "a.json"))
    once = pool.batch(3.0, 3, np.random.default_rng(0))
    twice = once.twice()
    for name in ("audio", "lengths", "targets", "target_lengths"):
        first, second = getattr(twice, name).chunk(2)
        assert first.equal(getattr(once, name))
        assert second.equal(first)


@pytest.mark.nemo
def test_the_checkpoint_is_the_mean_and_weighs_blanks(tmp_path: Path) -> None:
    """Weights are the mean of the training's; the bias of blanks alone moves, by what is asked."""
    import torch  # noqa: PLC0415 - optional

    from recipes.english import finish  # noqa: PLC0415 - as torch
    from support.nemo import restored  # noqa: PLC0415 - as torch

    net = restored(ROOT / "recipes" / "english" / "english.nemo")
    begun = {name: one.detach().clone() for name, one in net.named_parameters()}
    for name, factor in (("low", 0.5), ("high", 1.5)):
        weights = {key: factor * one for key, one in begun.items()}
        torch.save(weights, tmp_path / f"{name}.pt")
    finish.take_mean(net, [tmp_path / "low.pt", tmp_path / "high.pt"])
    for name, one in net.named_parameters():
        assert torch.allclose(one, begun[name], atol=1e-6)
    bias = net.decoder.decoder_layers[0].bias.detach().clone()
    finish.weigh_blank(net, -0.7)
    moved = net.decoder.decoder_layers[0].bias.detach() - bias
    assert moved[-1] == pytest.approx(-0.7)
    assert float(moved[:-1].abs().sum()) == 0


@pytest.mark.nemo
def test_spoiled_speech_keeps_its_shape_and_bounds() -> None:
    """Effects change neither shape nor range; masks and warps keep features finite."""
    import torch  # noqa: PLC0415 - optional

    from recipes.english import spoil  # noqa: PLC0415 - as torch

    audio = torch.from_numpy(np.stack([babble(2.0, seed=seed) for seed in range(6)]))
    spoiled = spoil.spoil(audio)
    assert spoiled.shape == audio.shape
    assert bool(torch.isfinite(spoiled).all())
    assert float(spoiled.abs().max()) <= 1
    features = torch.randn(6, 80, 200)
    bank = spoil.warps(5, 80, "cpu")
    assert torch.allclose(bank.sum(2), torch.ones(5, 80), atol=1e-5)
    masked = spoil.mask(spoil.warp(features, bank), torch.full((6,), 200))
    assert masked.shape == features.shape
    assert bool(torch.isfinite(masked).all())


@pytest.mark.nemo
def test_drawn_voices_are_mixes_of_all_that_there_are(tmp_path: Path) -> None:
    """Voices differ from each other, and lie about the recorded ones: their mean is theirs."""
    from recipes.english.kokoro import LONGEST_STYLE, STYLE, Voices  # noqa: PLC0415 - needs torch

    rng = np.random.default_rng(0)
    recorded = rng.normal(1, 1, (5, LONGEST_STYLE + 1, 1, STYLE)).astype(np.float32)
    np.savez(tmp_path / "voices.npz", **{f"voice_{n}": one for n, one in enumerate(recorded)})
    voices = Voices(tmp_path / "voices.npz")
    drawn = voices.draw(rng, 40, 3000)
    own = recorded[:, 40, 0]
    assert drawn.shape == (3000, STYLE)
    assert np.abs(drawn.mean(0) - own.mean(0)).max() < 0.1 * own.std(0).max()
    assert drawn.std(0).min() > 0.3 * own.std(0).min()
    weights = voices.weights(rng, 3000)
    assert np.allclose(weights.sum(1), 1)
    assert 0.45 < ((weights != 0).sum(1) <= 3).mean() < 0.55, "half are mixes of a few"


@pytest.mark.nemo
def test_every_frame_belongs_to_one_token() -> None:
    """Kokoro's alignment gives each token its frames, and the last one those that are left."""
    import torch  # noqa: PLC0415 - optional

    from recipes.english.kokoro import alignment  # noqa: PLC0415 - as torch

    lengths = torch.tensor([[1, 2, 3], [4, 1, 4]])
    frames = alignment(lengths.clone())
    assert frames.shape == (2, 3, 9)
    assert bool((frames.sum(1) == 1).all())
    assert frames.sum(2).tolist() == [[1, 2, 6], [4, 1, 4]]
