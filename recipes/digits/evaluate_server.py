"""Step 6: word errors of a running server, through the official client."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

import riva.client

from recipes.digits.corpus import read_manifest
from recipes.digits.evaluate import report

if TYPE_CHECKING:
    from collections.abc import Callable

    from recipes.digits.corpus import Clip

    Recognise = Callable[[riva.client.ASRService, bytes], str]

CHUNK_BYTES = 3200


def offline(service: riva.client.ASRService, audio: bytes) -> str:
    """Send a recording whole."""
    response = service.offline_recognize(audio, config())
    return "".join(one.alternatives[0].transcript for one in response.results if one.alternatives)


def streaming(service: riva.client.ASRService, audio: bytes) -> str:
    """Send a recording in small pieces and join the finals."""
    wanted = riva.client.StreamingRecognitionConfig(config=config(), interim_results=False)
    pieces = [audio[i : i + CHUNK_BYTES] for i in range(0, len(audio), CHUNK_BYTES)]
    return "".join(
        result.alternatives[0].transcript
        for response in service.streaming_response_generator(pieces, wanted)
        for result in response.results
        if result.alternatives
    )


def config() -> riva.client.RecognitionConfig:
    """Ask for English, and leave encoding and rate to the file's header."""
    return riva.client.RecognitionConfig(language_code="en-US", max_alternatives=1)


def evaluate(clips: list[Clip], service: riva.client.ASRService, *, show: bool) -> None:
    """Report both ways of sending."""
    ways: dict[str, Recognise] = {"offline": offline, "streaming": streaming}
    for name, recognise in ways.items():
        heard = [recognise(service, clip.audio.read_bytes()) for clip in clips]
        report(f"server, {name}", clips, heard, show=show)


def main() -> None:
    """Read the command line and evaluate."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("manifest", type=Path, help="its clips with split == test are sent")
    parser.add_argument("--uri", default="localhost:50051")
    parser.add_argument("--errors", action="store_true", help="print what was misheard")
    options = parser.parse_args()
    clips = [clip for clip in read_manifest(options.manifest) if clip.split == "test"]
    service = riva.client.ASRService(riva.client.Auth(uri=options.uri))
    evaluate(clips, service, show=options.errors)


if __name__ == "__main__":
    main()
