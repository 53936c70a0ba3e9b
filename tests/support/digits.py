"""A small trained model whose words are exact and quick: where its parts lie."""

from __future__ import annotations

from pathlib import Path

_ROOT = Path(__file__).parents[2]
_DATA = _ROOT / "tests" / "data" / "digits"
ARCHIVE = _DATA / "digits.rmir"
CHECKPOINT = _ROOT / "recipes" / "digits" / "digits.nemo"
# 3.95 s, 16 kHz, mono, and what both of its pipelines hear in it.
SAMPLE = _DATA / "digits.wav"
SAID = "four one seven two nine six"
