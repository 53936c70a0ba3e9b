"""From recognised words to those that a client reads: hints, written forms, masked words."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, TypeAlias

from riva_speech.asr.results import RecognisedWord
from riva_speech.sessions.opening import existing
from riva_speech.text import grammars
from riva_speech.text.hints import SpeechHints
from riva_speech.text.inverse_normalisation import InverseNormaliser
from riva_speech.text.profanity import ProfanityFilter

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from riva_speech.asr.options import RequestOptions
    from riva_speech.asr.pipeline import PipelineConfig
    from riva_speech.asr.sharing import Shared
    from riva_speech.text.rewriting import Rewriting

Words: TypeAlias = "tuple[RecognisedWord, ...]"

# The files of a deployed pipeline, in its version folder.
TAGGER_FILE = "tokenize_and_classify.far"
VERBALISER_FILE = "verbalize.far"
HINTS_FILE = "speech_hints.far"
PROFANITY_FILE = "profane_words.txt"
FILES = (TAGGER_FILE, VERBALISER_FILE, HINTS_FILE, PROFANITY_FILE)

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Writer:
    """Writes words as a request wants them, with what the pipeline has for it. Safe to share."""

    hints: SpeechHints | None = None
    normaliser: InverseNormaliser | None = None
    profanity: ProfanityFilter | None = None

    @property
    def is_quick(self) -> bool:
        """Whether there are no grammars to run."""
        return not (self.hints or self.normaliser)

    @property
    def classes(self) -> tuple[str, ...]:
        """The classes that phrases of a request may name."""
        return self.hints.classes if self.hints else ()

    def changes(self, options: RequestOptions, *, is_final: bool) -> bool:
        """Whether there is anything to do."""
        masks = options.profanity_filter and self.profanity is not None
        return masks or (not self.is_quick and self._rewrites(options, is_final=is_final))

    def __call__(self, words: Words, options: RequestOptions, *, is_final: bool) -> Words:
        """Return words as they are written.

        A word that stands for several lasts from the first of them to the last, and is as sure as
        the least sure.
        """
        if self._rewrites(options, is_final=is_final):
            words = self._written(words, [boost.phrase for boost in options.boosts])
        if options.profanity_filter and self.profanity:
            texts = self.profanity([word.text for word in words])
            words = tuple(word._replace(text=text) for word, text in zip(words, texts, strict=True))
        return words

    @staticmethod
    def _rewrites(options: RequestOptions, *, is_final: bool) -> bool:
        return not options.verbatim and (is_final or options.partial_itn)

    def _written(self, words: Words, phrases: Sequence[str]) -> Words:
        if self.hints:
            words = _apply(self.hints(_texts(words), phrases), words)
        if self.normaliser:
            words = _apply(self.normaliser(_texts(words)), words)
        return words


def _texts(words: Words) -> list[str]:
    return [word.text for word in words]


def _apply(rewriting: Rewriting, words: Words) -> Words:
    return tuple(_joined(one.text, words[one.first : one.last]) for one in rewriting)


def _joined(text: str, words: Words) -> RecognisedWord:
    confidence = min(word.confidence for word in words)
    return RecognisedWord(text, words[0].start_ms, words[-1].end_ms, confidence)


def load_writer(version: Path, config: PipelineConfig, shared: Shared) -> Writer:
    """Return what writes the words of a pipeline.

    Raises:
        UnsupportedError: Grammars are to be run, pynini is not installed, and nothing else may be
            done instead.
        ArtifactMissingError: A file that the pipeline names is not there.
        DamagedArchiveError: A file is no file of grammars.
    """
    text = config.text
    profanity = None
    if text.profane_words:
        profanity = ProfanityFilter.load(existing(version / PROFANITY_FILE))
    hints = normaliser = None
    if (text.inverse_normalisation or text.speech_hints) and _can_run_grammars(config):
        if text.inverse_normalisation:
            tagger, verbaliser = (
                existing(version / TAGGER_FILE),
                existing(version / VERBALISER_FILE),
            )
            make = partial(InverseNormaliser, tagger, verbaliser)
            normaliser = shared.once([tagger, verbaliser], make)
        if text.speech_hints:
            path = existing(version / HINTS_FILE)
            hints = shared.once([path], partial(SpeechHints, path))
    return Writer(hints, normaliser, profanity)


def _can_run_grammars(config: PipelineConfig) -> bool:
    if config.text.fallback and not grammars.is_available():
        _log.warning(
            "Model %s writes words as they are spoken: pynini is not installed. For numbers in "
            "digits: pip install '%s'",
            config.name,
            grammars.REQUIREMENT,
        )
        return False
    grammars.require()
    return True
