"""Pipelines of the official riva-build that this one does not have yet, and what they wait for."""

from __future__ import annotations

from riva_speech.errors import UnsupportedError

NAMES = {
    "speech_synthesis": "FastPitch and HiFi-GAN, their text processing and a server for them",
    "punctuation": "the punctuation model and the language services",
    "qa": "the question answering model and the language services",
    "token_classification": "the entity model and the language services",
    "intent_slot": "the intent model and the language services",
    "text_classification": "the classification model and the language services",
    "translation": "the translation model and its service",
    "megatron_translation": "the translation model and its service",
}


def refuse(name: str) -> None:
    """Refuse a pipeline that is one of these.

    Raises:
        UnsupportedError: It is.
    """
    if name in NAMES:
        raise UnsupportedError(
            f"the pipeline {name} is not in this version: it waits for {NAMES[name]}"
        )
