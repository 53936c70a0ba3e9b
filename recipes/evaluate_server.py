"""Word errors of pipelines through a deployed server and the official client, as a table.

Each `.rmir` is deployed into a fresh repository and served on a port of its own; or the server at
`--uri` is asked. Every recording is sent whole, and as a stream in pieces of 100 ms.

    python -m recipes.evaluate_server dev/a/manifest.jsonl dev/b/manifest.jsonl \
        --rmir "greedy, fp32=work/greedy.rmir" --rmir "language model, int8=work/lm_int8.rmir"
"""

from __future__ import annotations

import argparse
import io
import json
import socket
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
import riva.client
import soundfile
from grpc_health.v1 import health_pb2, health_pb2_grpc

from recipes.word_errors import distance

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Recognise = Callable[[riva.client.ASRService, bytes], str]

CHUNK_BYTES = 3200
READY_SECONDS = 120
DEPLOY = (sys.executable, "-m", "riva_speech.servicemaker.riva_deploy")
SERVE = (sys.executable, "-m", "riva_speech.server.start_riva")


@dataclass(frozen=True)
class Clip:
    """One recording and what is said in it."""

    audio: Path
    text: str


@dataclass(frozen=True)
class Score:
    """How one pipeline heard one list, and how long that took."""

    model: str
    way: str
    manifest: str
    errors: int
    words: int
    seconds: float

    @property
    def rate(self) -> float:
        """The word error rate in per cent."""
        return 100 * self.errors / self.words


def read_manifest(path: Path, split: str = "") -> list[Clip]:
    """Read a NeMo manifest; audio paths are relative to it, and a split chooses its rows."""
    rows = map(json.loads, path.read_text(encoding="utf-8").splitlines())
    return [
        Clip(path.parent / row["audio_filepath"], row["text"])
        for row in rows
        if split in ("", row.get("split"))
    ]


def wav(path: Path) -> bytes:
    """Return a recording as a WAV file of 16 bits."""
    samples, rate = soundfile.read(path, dtype="int16")
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format="WAV", subtype="PCM_16")
    return file.getvalue()


def offline(service: riva.client.ASRService, audio: bytes) -> str:
    """Send a recording whole."""
    response = service.offline_recognize(audio, _config())
    return "".join(one.alternatives[0].transcript for one in response.results if one.alternatives)


def streaming(service: riva.client.ASRService, audio: bytes) -> str:
    """Send a recording in small pieces and join the finals."""
    wanted = riva.client.StreamingRecognitionConfig(config=_config(), interim_results=False)
    pieces = [audio[i : i + CHUNK_BYTES] for i in range(0, len(audio), CHUNK_BYTES)]
    return "".join(
        result.alternatives[0].transcript
        for response in service.streaming_response_generator(pieces, wanted)
        for result in response.results
        if result.alternatives
    )


WAYS: dict[str, Recognise] = {"offline": offline, "streaming": streaming}


def _config() -> riva.client.RecognitionConfig:
    """Ask for English, and leave encoding and rate to the file's header."""
    return riva.client.RecognitionConfig(language_code="en-US", max_alternatives=1)


@contextmanager
def serving(rmir: Path) -> Iterator[str]:
    """Deploy a pipeline, serve it, and give the server's address."""
    with tempfile.TemporaryDirectory() as folder:
        repository = Path(folder) / "models"
        subprocess.run([*DEPLOY, str(rmir), str(repository)], check=True)
        uri = f"127.0.0.1:{_free_port()}"
        command = [*SERVE, f"--riva-uri={uri}", f"--model_repository={repository}"]
        with subprocess.Popen(command) as process:
            try:
                _wait(uri, process)
                yield uri
            finally:
                process.terminate()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait(uri: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + READY_SECONDS
    with grpc.insecure_channel(uri) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        while time.monotonic() < deadline and process.poll() is None:
            try:
                answer = health.Check(health_pb2.HealthCheckRequest(), timeout=1)
            except grpc.RpcError:
                answer = None
            if answer and answer.status == health_pb2.HealthCheckResponse.SERVING:
                return
            time.sleep(0.2)
    raise SystemExit(f"the server at {uri} did not become ready")


def evaluate(
    model: str, uri: str, manifests: list[Path], options: argparse.Namespace
) -> Iterator[Score]:
    """Let a server hear every list in every way."""
    service = riva.client.ASRService(riva.client.Auth(uri=uri))
    for manifest in manifests:
        clips = read_manifest(manifest, options.split)
        audio = [wav(clip.audio) for clip in clips]
        for way in options.ways:
            began = time.monotonic()
            with ThreadPoolExecutor(options.jobs) as pool:
                heard = list(pool.map(lambda one, way=way: WAYS[way](service, one), audio))
            seconds = time.monotonic() - began
            errors = _count(clips, heard, show=options.errors)
            words = sum(len(clip.text.split()) for clip in clips)
            name = manifest.parent.name if manifest.stem == "manifest" else manifest.stem
            yield Score(model, way, name, errors, words, round(seconds, 1))


def _count(clips: list[Clip], heard: list[str], *, show: bool) -> int:
    errors = 0
    for clip, text in zip(clips, heard, strict=True):
        wrong = distance(clip.text.split(), text.split())
        errors += wrong
        if show and wrong:
            print(f"{clip.audio.name}\t{clip.text}\t{text.strip()}")
    return errors


def table(scores: list[Score]) -> str:
    """Return word error rates as Markdown, a row for each pipeline and way."""
    lists = list(dict.fromkeys(score.manifest for score in scores))
    rows: dict[tuple[str, str], dict[str, str]] = {}
    for score in scores:
        row = rows.setdefault((score.model, score.way), {})
        row[score.manifest] = f"{score.rate:.2f} %"
    head = ["pipeline", "way", *lists]
    lines = [head, ["---"] * len(head)]
    lines += [[*key, *(found.get(one, "") for one in lists)] for key, found in rows.items()]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("manifests", type=Path, nargs="+", help="NeMo manifests")
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--uri", help="a server that runs")
    where.add_argument("--rmir", action="append", metavar="NAME=FILE", help="a pipeline to deploy")
    parser.add_argument("--split", default="", help="only the rows of this split")
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument("--jobs", type=int, default=2, help="recordings sent at once")
    parser.add_argument("--errors", action="store_true", help="print what was misheard")
    parser.add_argument("--json", type=Path, help="write every count to this file, too")
    return parser.parse_args()


def main() -> None:
    """Evaluate and print the table."""
    options = parse()
    scores: list[Score] = []
    if options.uri:
        scores += evaluate("server", options.uri, options.manifests, options)
    for pair in options.rmir or []:
        name, _, rmir = pair.rpartition("=")
        with serving(Path(rmir)) as uri:
            scores += evaluate(name or Path(rmir).stem, uri, options.manifests, options)
    if options.json:
        rows = [asdict(score) for score in scores]
        options.json.write_text(json.dumps(rows, indent=2) + "\n")
    print(table(scores))


if __name__ == "__main__":
    main()
