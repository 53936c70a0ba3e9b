"""Beam search over CTC models with flashlight-text: lexicons and KenLM language models."""

from __future__ import annotations

from copy import copy
from dataclasses import replace
from functools import lru_cache, partial
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np

from riva_speech.asr.ctc import read_blanks
from riva_speech.asr.deferred import DeferredDecoder
from riva_speech.asr.flashlight_decoder import EARLY, LATE, NO_SPACE, FlashlightDecoder, Setting
from riva_speech.errors import DamagedArchiveError, UnsupportedError
from riva_speech.text.spelling import Speller
from riva_speech.text.vocabulary import VocabularyType

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from riva_speech.asr.acoustic import LogProbs
    from riva_speech.asr.ctc import Decoder, Reading
    from riva_speech.asr.decoder_config import FlashlightConfig
    from riva_speech.asr.options import Boost
    from riva_speech.text.lexicon import Lexicon
    from riva_speech.text.spelling import Spelling
    from riva_speech.text.vocabulary import Vocabulary

NAME = "flashlight"
REQUIREMENT = "flashlight-text>=0.0.7"

# KenLM's own name for words that it does not know.
_UNKNOWN = "<unk>"
# Requests with the same phrases share a trie; so many are kept.
_SETTINGS = 2


def is_available() -> bool:
    """Whether flashlight-text is installed."""
    return find_spec("flashlight") is not None


class FlashlightDecoding:
    """A lexicon as a trie, and a language model; what all streams share."""

    name = NAME

    def __init__(
        self,
        vocabulary: Vocabulary,
        config: FlashlightConfig,
        lexicon: Lexicon | None,
        language_model: Path | None,
        speller: Speller | None = None,
    ) -> None:
        """Load the language model and build the trie.

        Args:
            vocabulary: The acoustic model's tokens.
            config: Weights and widths of the search.
            lexicon: The words to choose from; None finds any sequence of tokens.
            language_model: A KenLM file, ARPA or binary: of words, or without a lexicon of tokens.
            speller: Spells the words of phrases that are boosted.

        Raises:
            UnsupportedError: flashlight-text is not installed.
            DamagedArchiveError: KenLM refuses the language model.
        """
        if not is_available():
            raise UnsupportedError(
                "the decoder flashlight needs flashlight-text, which is not installed",
                hint=f"pip install '{REQUIREMENT}', or build the pipeline with "
                "--decoder_type=greedy",
            )
        self.vocabulary = vocabulary
        self.lexicon = lexicon
        self.speller = speller or Speller(vocabulary)
        self.space = _space(vocabulary) if lexicon else NO_SPACE
        words = lexicon.words if lexicon else None
        units = words if words is not None else _written(vocabulary)
        self.model = _load_model(language_model, units)
        # What each word is worth to the language model, and after them an unknown one.
        self.scores = self._score_words(len(units)) if lexicon else []
        trie = self.plant(lexicon.entries, self.scores) if lexicon else None
        self._setting = Setting(self.model, trie, words, config.lm_weight)
        self.settling = LATE
        self._configure(config)

    def _configure(self, config: FlashlightConfig) -> None:
        self.config = config
        self._setting = replace(self._setting, weight=config.lm_weight)
        self._boosted = lru_cache(_SETTINGS)(self._boost)

    def searching(self, config: FlashlightConfig) -> FlashlightDecoding:
        """Return what searches the same words and language model otherwise, in the same memory.

        Without a lexicon this does not become one with, nor the other way round.
        """
        if config == self.config:
            return self
        other = copy(self)
        FlashlightDecoding._configure(other, config)
        return other

    def settling_early(self) -> FlashlightDecoding:
        """Return the same for streams that are to take little memory, and give one reading."""
        other = copy(self)
        other.settling = EARLY
        return other

    def start(self, boosts: tuple[Boost, ...] = ()) -> Decoder:
        """Return the decoder of a new stream."""
        if boosts:
            return DeferredDecoder(partial(self._start_boosted, boosts))
        return self._decoder(self._setting)

    def _start_boosted(self, boosts: tuple[Boost, ...]) -> FlashlightDecoder:
        return self._decoder(self._boosted(boosts).own())

    def _boost(self, boosts: tuple[Boost, ...]) -> Setting:
        from riva_speech.asr import flashlight_boosts  # noqa: PLC0415 - imports flashlight

        return flashlight_boosts.boosted(self, self._setting, boosts)

    def _decoder(self, setting: Setting) -> FlashlightDecoder:
        from flashlight.lib.text import decoder  # noqa: PLC0415 - optional

        config, blank = self.config, self.vocabulary.blank
        shared = {
            "beam_size": config.beam_size,
            "beam_size_token": config.beam_size_token,
            "beam_threshold": config.beam_threshold,
            "lm_weight": setting.weight,
            "sil_score": 0.0,
            "log_add": False,
            "criterion_type": decoder.CriterionType.CTC,
        }
        if setting.trie is None:
            free = decoder.LexiconFreeDecoderOptions(**shared)
            search = decoder.LexiconFreeDecoder(free, setting.model, blank + 1, blank, [])
            return FlashlightDecoder(search, self.vocabulary, self.space, setting, self.settling)
        options = decoder.LexiconDecoderOptions(
            word_score=config.word_insertion_score, unk_score=config.unk_score, **shared
        )
        # The unknown word follows all others: to KenLM those of the lexicon, and to a model with
        # phrases also the words that they add.
        unknown = len(setting.words or ())
        of_words: tuple[Any, ...] = (blank + 1, blank, unknown, [], False)
        search = decoder.LexiconDecoder(options, setting.trie, setting.model, *of_words)
        return FlashlightDecoder(search, self.vocabulary, self.space, setting, self.settling)

    def read(self, carries: Sequence[None], steps: Sequence[LogProbs]) -> list[Reading]:
        """Read which steps are blank, once blanks are penalised; each stream searches by itself."""
        if penalty := self.config.blank_penalty:
            blank = self.vocabulary.blank
            steps = [_penalised(log_probs, blank, penalty) for log_probs in steps]
        return read_blanks(carries, steps)

    def _score_words(self, count: int) -> list[float]:
        state = self.model.start(False)  # noqa: FBT003 - flashlight's own signature
        return [self.model.score(state, number)[1] for number in range(count + 1)]

    def plant(self, entries: Sequence[tuple[str, Spelling]], scores: Sequence[float]) -> Any:  # noqa: ANN401 - flashlight has no types
        """Build a trie of spellings; each branch knows the best word below it.

        Words are numbered in the order of their first spelling, and so are their ``scores``.
        A spelling over characters begins with the space before the word: so a word ends with its
        last letter, and needs no space after it that an utterance's end may lack.
        """
        from flashlight.lib.text import decoder  # noqa: PLC0415 - optional

        prefix = [] if self.space == NO_SPACE else [self.space]
        trie = decoder.Trie(self.vocabulary.blank + 2, self.vocabulary.blank)
        numbers: dict[str, int] = {}
        for word, tokens in entries:
            number = numbers.setdefault(word, len(numbers))
            trie.insert([*prefix, *tokens], number, scores[number])
        trie.smear(decoder.SmearingMode.MAX)
        return trie


def _penalised(log_probs: LogProbs, blank: int, penalty: float) -> LogProbs:
    """Return log-probabilities, [steps, tokens + 1], of a model whose blanks are less likely.

    They are those of logits from which the penalty is taken: each step's sum is one again.
    """
    rows = np.array(log_probs, np.float32)
    rows[:, blank] -= penalty
    left = np.log1p(np.exp(log_probs[:, blank]) * np.expm1(-penalty))
    return rows - left[:, np.newaxis]


def _space(vocabulary: Vocabulary) -> int:
    """Return the token that stands between words, where there is one."""
    if vocabulary.type is VocabularyType.CHARACTER and " " in vocabulary.tokens:
        return vocabulary.tokens.index(" ")
    return NO_SPACE


def _written(vocabulary: Vocabulary) -> list[str]:
    """Return tokens as a language model of tokens writes them: a space is ``|``."""
    return [token if token.strip() else "|" for token in vocabulary.tokens]


def _load_model(path: Path | None, units: list[str]) -> Any:  # noqa: ANN401 - no types
    from flashlight.lib.text import decoder  # noqa: PLC0415 - optional
    from flashlight.lib.text.decoder.kenlm import KenLM  # noqa: PLC0415 - optional
    from flashlight.lib.text.dictionary import Dictionary  # noqa: PLC0415 - optional

    if path is None:
        return decoder.ZeroLM()
    try:
        # Boosted words that the lexicon lacks are scored as the unknown one.
        return KenLM(str(path), Dictionary([*units, _UNKNOWN]))
    except Exception as error:
        reason = str(error).strip().splitlines()[-1:]
        raise DamagedArchiveError(
            f"KenLM refuses the language model {path}: {''.join(reason)}",
            hint="give an ARPA file or a binary that KenLM's build_binary made",
        ) from error
