"""Which model answers a request."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from riva_speech.asr.pipeline import OFFLINE, ONLINE
from riva_speech.asr.streaming import StreamingRecognizer
from riva_speech.repository import PIPELINE_SUFFIX

if TYPE_CHECKING:
    from collections.abc import Iterable

    from riva_speech.asr.loading import Recognizer


class UnavailableModelError(ValueError):
    """No deployed model fits a request; the text is Riva's, and what there is instead."""


@dataclass(frozen=True)
class Wanted:
    """What a request says about the model it wants; empty values leave the choice open."""

    name: str
    language_code: str
    sample_rate: int

    def fits(self, recognizer: Recognizer) -> bool:
        """Whether a model is of this name, with or without the suffix, and this language.

        A language without a region, such as ``en``, is any region's.
        """
        config = recognizer.config
        name = self.name.removesuffix(PIPELINE_SUFFIX)
        asked, spoken = self.language_code.lower(), config.language_code.lower()
        return name in ("", config.name) and asked in ("", spoken, spoken.partition("-")[0])


class Registry:
    """The deployed recognisers, in the order of their names."""

    def __init__(self, recognizers: Iterable[Recognizer]) -> None:
        self.recognizers = sorted(recognizers, key=lambda recognizer: recognizer.config.name)

    def online(self, wanted: Wanted) -> StreamingRecognizer:
        """Return the model for a stream.

        Raises:
            UnavailableModelError: None fits.
        """
        for recognizer in self.recognizers:
            if isinstance(recognizer, StreamingRecognizer) and wanted.fits(recognizer):
                return recognizer
        raise self._unavailable(wanted, ONLINE)

    def offline(self, wanted: Wanted) -> Recognizer:
        """Return the model for a whole utterance: an offline one, else a streaming one.

        Raises:
            UnavailableModelError: None fits.
        """
        fitting = [recognizer for recognizer in self.recognizers if wanted.fits(recognizer)]
        if not fitting:
            raise self._unavailable(wanted, OFFLINE)
        return next((one for one in fitting if one.config.type == OFFLINE), fitting[0])

    def _unavailable(self, wanted: Wanted, kind: str) -> UnavailableModelError:
        """Return the error in Riva's words, which scripts look for: the short ones for a language.

        Where a name was asked for, it goes on to tell what there is.
        """
        if not wanted.name:
            return UnavailableModelError(
                f"Error: Unavailable model requested. Lang: {wanted.language_code}, Type: {kind}"
            )
        return UnavailableModelError(
            "Error: Unavailable model requested given these parameters: "
            f"language_code={wanted.language_code}; sample_rate={wanted.sample_rate}; "
            f"type={kind}; name={wanted.name}; Available: {self.available}"
        )

    @property
    def available(self) -> str:
        """The models that there are, for people to read."""
        return "; ".join(
            f"{one.config.name} ({one.config.language_code}, {one.config.type})"
            for one in self.recognizers
        )
