"""Beam search over CTC models with flashlight-text: lexicons and KenLM language models."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache, partial
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np

from riva_speech.asr.ctc import Hypothesis, Reading, Tokens, read_blanks
from riva_speech.asr.deferred import DeferredDecoder
from riva_speech.asr.peaks import NEVER, Peaks
from riva_speech.errors import DamagedArchiveError, UnsupportedError
from riva_speech.text.spelling import Speller
from riva_speech.text.vocabulary import VocabularyType, Word

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from riva_speech.asr.acoustic import LogProbs
    from riva_speech.asr.ctc import Decoder
    from riva_speech.asr.options import Boost
    from riva_speech.asr.pipeline import FlashlightConfig
    from riva_speech.text.lexicon import Lexicon
    from riva_speech.text.spelling import Spelling
    from riva_speech.text.vocabulary import Vocabulary

NAME = "flashlight"
REQUIREMENT = "flashlight-text>=0.0.7"

NO_SPACE = -1
# KenLM's own name for words that it does not know.
_UNKNOWN = "<unk>"
# Requests with the same phrases share a trie; so many are kept.
_SETTINGS = 2

# A long utterance without a pause is committed piece by piece. By then all hypotheses agree on
# what lies half a block back.
_BLOCK_STEPS = 512


def is_available() -> bool:
    """Whether flashlight-text is installed."""
    return find_spec("flashlight") is not None


@dataclass(frozen=True)
class Setting:
    """What a search looks things up in: plain for all streams, or with the phrases of some.

    ``model`` is the language model, and ``weight`` its weight; ``words`` are those of the ``trie``
    by number, and neither is there without a lexicon.
    """

    model: Any
    trie: Any
    words: Sequence[str] | None
    weight: float

    def own(self) -> Setting:
        """Return the same with a model that remembers one stream only, where it remembers any."""
        return replace(self, model=self.model.own()) if hasattr(self.model, "own") else self


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
        self.config = config
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
        self._boosted = lru_cache(_SETTINGS)(self._boost)

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
            return FlashlightDecoder(search, self, setting)
        options = decoder.LexiconDecoderOptions(
            word_score=config.word_insertion_score, unk_score=-np.inf, **shared
        )
        of_words: tuple[Any, ...] = (blank + 1, blank, -1, [], False)
        search = decoder.LexiconDecoder(options, setting.trie, setting.model, *of_words)
        return FlashlightDecoder(search, self, setting)

    def read(self, carries: Sequence[None], steps: Sequence[LogProbs]) -> list[Reading]:
        """Read which steps are blank; each stream searches by itself."""
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


class FlashlightDecoder:
    """Decodes one stream, utterance by utterance."""

    carry = None

    is_quick = False

    def __init__(self, search: Any, decoding: FlashlightDecoding, setting: Setting) -> None:  # noqa: ANN401
        self._search = search
        self._decoding = decoding
        self._setting = setting
        self._blank = decoding.vocabulary.blank
        by_words = setting.words is not None
        self._peaks = Peaks(self._blank) if by_words else None
        # A lexicon's search wants a token for silence. No model has one, and so none may be heard.
        self._padding = ((0, 0), (0, int(by_words)))
        self._steps = 0
        self._begin()

    def accept(self, reading: Reading) -> None:
        """Take the next steps."""
        rows = np.asarray(reading.log_probs, np.float32)
        self._feed(self._peaks.accept(rows) if self._peaks else rows)

    def best(self) -> Hypothesis:
        """Return the words of the best path so far, as far as they are whole."""
        return self._read(self._search.get_best_hypothesis(0), is_final=False)

    def end(self, count: int = 1) -> list[Hypothesis]:
        """End the utterance; return at most ``count`` readings, the best first."""
        if self._peaks:
            self._feed(self._peaks.finish())
        self._search.decode_end()
        found: dict[str, Hypothesis] = {}
        for result in self._search.get_all_final_hypothesis():
            hypothesis = self._read(result, is_final=True)
            found.setdefault(hypothesis.text, hypothesis)
            if len(found) >= count:
                break
        self._begin()
        return list(found.values()) or [Hypothesis(Tokens.none(), ())]

    def _begin(self) -> None:
        """Begin an utterance; before its first word a virtual step stands for the space."""
        self._search.decode_begin()
        self._committed = Hypothesis(Tokens.none(), ())
        self._rows = np.zeros((0, self._blank + 1), np.float32)
        self._before = self._blank
        if self._decoding.space != NO_SPACE:
            row = np.full((1, self._blank + 1), NEVER, np.float32)
            row[0, [self._decoding.space, self._blank]] = 0
            self._steps -= 1
            self._feed(row)

    def _feed(self, rows: NDArray[np.float32]) -> None:
        """Search on, and commit at the same steps however the rows come."""
        while len(rows):
            size = min(len(rows), _BLOCK_STEPS - len(self._rows))
            block, rows = rows[:size], rows[size:]
            emissions = np.ascontiguousarray(np.pad(block, self._padding, constant_values=NEVER))
            self._search.decode_step(emissions.ctypes.data, *emissions.shape)
            self._rows = np.concatenate([self._rows, block])
            self._steps += size
            if len(self._rows) == _BLOCK_STEPS:
                self._commit()

    def _commit(self) -> None:
        """Settle the words that lie far enough back, and forget what led to them."""
        result = self._search.get_best_hypothesis(_BLOCK_STEPS // 2)
        self._committed = self._read(result, is_final=False)
        settled = len(result.tokens) - 1
        self._search.prune(_BLOCK_STEPS // 2)
        self._before = int(result.tokens[-1]) if settled else self._before
        self._rows = self._rows[settled:]

    def _read(self, result: Any, *, is_final: bool) -> Hypothesis:  # noqa: ANN401 - no types
        """Turn a path, one token a step, into words behind those that are settled.

        A path begins with the state before its first step; a final one ends with one after its
        last.
        """
        last = -1 if is_final else None
        path = np.array(result.tokens[1:last], np.int64)
        previous = np.concatenate([[self._before], path[:-1]])[: len(path)]
        begins = (path != previous) & (path < self._blank)
        if self._setting.words is None:
            tokens = self._committed.tokens + self._tokens(path, np.flatnonzero(begins))
            return Hypothesis(tokens, tuple(self._decoding.vocabulary.words(tokens.ids.tolist())))
        labels = np.array(result.words[1:last], np.int64)
        ends = np.flatnonzero(labels >= 0)
        spoken = np.flatnonzero(begins & (path != self._decoding.space))
        at = spoken[: np.searchsorted(spoken, ends[-1], side="right")] if len(ends) else spoken[:0]
        return self._join(self._tokens(path, at), list(self._words(at, ends, labels[ends])))

    def _tokens(self, path: NDArray[np.int64], at: NDArray[np.int64]) -> Tokens:
        first_step = self._steps - len(self._rows)
        return Tokens(path[at], at + first_step, np.exp(self._rows[at, path[at]]))

    def _words(
        self, at: NDArray[np.int64], ends: NDArray[np.int64], labels: NDArray[np.int64]
    ) -> Iterator[Word]:
        """Return the words of the lexicon; each ends where its label stands."""
        assert self._setting.words is not None
        first = 0
        for label, last in zip(labels, np.searchsorted(at, ends, side="right"), strict=True):
            yield Word(self._setting.words[label], first, int(last))
            first = int(last)

    def _join(self, tokens: Tokens, words: list[Word]) -> Hypothesis:
        before = len(self._committed.tokens)
        moved = (Word(word.text, word.first + before, word.last + before) for word in words)
        return Hypothesis(self._committed.tokens + tokens, (*self._committed.words, *moved))
