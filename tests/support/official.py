"""What the ASR scripts of nvidia-riva/python-clients ask, by the library that they are made of.

The scripts are not on a registry, their library is: it reads their flags, builds their requests,
cuts their files, prints what comes back and ends with their exit codes.
"""

from __future__ import annotations

import argparse
import io
from contextlib import redirect_stdout
from functools import partial
from threading import Thread
from typing import TYPE_CHECKING

import riva.client
from riva.client.argparse_utils import (
    add_asr_config_argparse_parameters,
    add_connection_argparse_parameters,
    cli_main,
)
from riva.client.proto import riva_asr_pb2

if TYPE_CHECKING:
    from pathlib import Path


def _parse(flags: tuple[str, ...]) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_connection_argparse_parameters(parser)
    add_asr_config_argparse_parameters(
        parser, max_alternatives=True, profanity_filter=True, word_time_offsets=True
    )
    for switch in ("--show-intermediate", "--print-confidence", "--simulate-realtime"):
        parser.add_argument(switch, action="store_true")
    parser.add_argument("--file-streaming-chunk", type=int, default=1600)
    return parser.parse_args(list(flags))


def _service(args: argparse.Namespace) -> riva.client.ASRService:
    auth = riva.client.Auth(
        ssl_root_cert=args.ssl_root_cert,
        use_ssl=args.use_ssl,
        uri=args.server,
        metadata_args=args.metadata,
        options=args.options,
    )
    return riva.client.ASRService(auth)


def _configuration(args: argparse.Namespace) -> riva.client.RecognitionConfig:
    config = riva.client.RecognitionConfig(
        language_code=args.language_code,
        model=args.model_name,
        max_alternatives=args.max_alternatives,
        profanity_filter=args.profanity_filter,
        enable_automatic_punctuation=args.automatic_punctuation,
        verbatim_transcripts=not args.no_verbatim_transcripts,
        enable_word_time_offsets=args.word_time_offsets or args.speaker_diarization,
    )
    riva.client.add_word_boosting_to_config(config, args.boosted_lm_words, args.boosted_lm_score)
    riva.client.add_speaker_diarization_to_config(
        config, args.speaker_diarization, args.diarization_max_speakers
    )
    names = ("start_history", "start_threshold", "stop_history", "stop_history_eou")
    values = {
        name: getattr(args, name) for name in (*names, "stop_threshold", "stop_threshold_eou")
    }
    riva.client.add_endpoint_parameters_to_config(config, **values)
    riva.client.add_custom_configuration_to_config(config, args.custom_configuration)
    return config


def list_models(uri: str, kind: str) -> dict[str, list[str]]:
    """Return the names of the models of a type by their language, as ``--list-models`` does."""
    request = riva_asr_pb2.RivaSpeechRecognitionConfigRequest()
    answer = _service(_parse(("--server", uri))).stub.GetRivaSpeechRecognitionConfig(request)
    found: dict[str, list[str]] = {}
    for one in answer.model_config:
        if one.parameters["type"] == kind:
            found.setdefault(one.parameters["language_code"], []).append(one.model_name)
    return found


def transcribe_file(uri: str, file: Path, *flags: str) -> str:
    """Return what transcribe_file.py prints."""
    printed = io.StringIO()
    args = _parse((*flags, "--server", uri))
    _transcribe(args, file, printed, "confidence" if args.print_confidence else "no")
    return printed.getvalue()


def _transcribe(
    args: argparse.Namespace, file: Path, output: io.StringIO | Path, kind: str
) -> None:
    config = riva.client.StreamingRecognitionConfig(
        config=_configuration(args), interim_results=True
    )
    delay = riva.client.sleep_audio_length if args.simulate_realtime else None
    with riva.client.AudioChunkFileIterator(file, args.file_streaming_chunk, delay) as chunks:
        riva.client.print_streaming(
            _service(args).streaming_response_generator(chunks, config),
            output_file=output,
            show_intermediate=args.show_intermediate,
            additional_info="time" if args.word_time_offsets else kind,
            word_time_offsets=args.word_time_offsets,
            file_mode="a",
        )


def exit_code(uri: str, file: Path, *flags: str) -> int:
    """Return what transcribe_file.py ends with."""
    return int(cli_main(lambda: transcribe_file(uri, file, *flags) and None)())


def streaming_client(
    uri: str, file: Path, folder: Path, *flags: str, clients: int, iterations: int
) -> list[str]:
    """Return what riva_streaming_asr_client.py writes into its files, each client's."""
    args = _parse((*flags, "--server", uri))
    outputs = [folder / f"output_{number}.txt" for number in range(clients)]

    def work(output: Path) -> None:
        for _ in range(iterations):
            _transcribe(args, file, output, "time")

    threads = [Thread(target=partial(work, output)) for output in outputs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [output.read_text() for output in outputs]


def transcribe_file_offline(uri: str, file: Path, *flags: str) -> str:
    """Return what transcribe_file_offline.py prints: the response as JSON, and the transcript."""
    args = _parse((*flags, "--server", uri))
    printed = io.StringIO()
    response = _service(args).offline_recognize(file.read_bytes(), _configuration(args))
    with redirect_stdout(printed):
        riva.client.print_offline(response)
    return printed.getvalue()
