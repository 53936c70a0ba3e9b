"""How words are made of log-probabilities: the values that riva-build sets."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

# What decodes transducers; the others decode CTC models.
TRANSDUCER_DECODER = "nemo"
DECODERS = ("greedy", "flashlight", TRANSDUCER_DECODER)

_WIDEST_BEAM = 4096
_MOST_SPELLINGS = 100
# In nats; beyond, a search would hear nothing but blanks, or none.
_LARGEST_PENALTY = 20.0
# As above; beyond, an unknown word would be what a search hears always, or never.
_LARGEST_UNKNOWN = 100.0


@dataclass(frozen=True)
class FlashlightConfig:
    """How widely flashlight searches, and what it weighs; Riva's names and defaults.

    A path's score is the sum of its log-probabilities, plus ``lm_weight`` times the language
    model's (in powers of ten), plus ``word_insertion_score`` for each word. A step keeps
    ``beam_size`` paths within ``beam_threshold`` of the best, and tries ``beam_size_token`` tokens
    for each. Blanks are ``blank_penalty`` nats less likely than the model says (icefall's name, not
    Riva's). A boosted word that the lexicon lacks is spelt in ``num_tokenization`` ways.

    ``unk_score`` (flashlight's name, not Riva's) is added where a path leaves a word of the lexicon
    before its end: what it has spelt is an unknown word. At minus infinity no path may.
    """

    lm_weight: float = 0.8
    word_insertion_score: float = 1.0
    beam_size: int = 32
    beam_size_token: int = 16
    beam_threshold: float = 20.0
    blank_penalty: float = 0.0
    use_lexicon_free_decoding: bool = False
    num_tokenization: int = 1
    unk_score: float = -math.inf

    def __post_init__(self) -> None:
        """Refuse, with a ValueError, what no search can have."""
        widths = (self.beam_size, self.beam_size_token)
        # Written so that NaN, which compares as false, is refused too.
        if not all(1 <= width <= _WIDEST_BEAM for width in widths):
            raise ValueError(f"beam sizes are 1 to {_WIDEST_BEAM}")
        if not 1 <= self.num_tokenization <= _MOST_SPELLINGS:
            raise ValueError(f"num_tokenization is 1 to {_MOST_SPELLINGS}")
        if not 0 < self.beam_threshold < math.inf:
            raise ValueError("beam_threshold is greater than 0")
        if not abs(self.blank_penalty) <= _LARGEST_PENALTY:
            raise ValueError(f"blank_penalty is -{_LARGEST_PENALTY:g} to {_LARGEST_PENALTY:g}")
        if not (self.unk_score == -math.inf or abs(self.unk_score) <= _LARGEST_UNKNOWN):
            bounds = f"-{_LARGEST_UNKNOWN:g} to {_LARGEST_UNKNOWN:g}"
            raise ValueError(f"unk_score is {bounds}, or -inf")
        if not all(map(math.isfinite, (self.lm_weight, self.word_insertion_score))):
            raise ValueError("weights are finite")


@dataclass(frozen=True)
class DecoderConfig:
    """How words are made of log-probabilities.

    ``asr_model_delay`` shifts word times by that many encoder steps. Where the library of ``type``
    is not installed, ``fallback`` decodes instead, if it is set.
    """

    type: str = "greedy"
    asr_model_delay: int = 0
    fallback: str = ""
    flashlight: FlashlightConfig = field(default_factory=FlashlightConfig)
