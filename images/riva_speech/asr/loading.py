"""From a model repository to recognisers."""

from __future__ import annotations

import logging
from functools import partial
from typing import TYPE_CHECKING, TypeAlias

from riva_speech import repository, safe_yaml, staging
from riva_speech.asr import flashlight
from riva_speech.asr.acoustic import OfflineAcousticModel
from riva_speech.asr.boosting import CTC_LIMIT, TRANSDUCER_LIMIT, Booster
from riva_speech.asr.buffered import BufferConfig, BufferedAcousticModel
from riva_speech.asr.cache_aware import StreamingAcousticModel
from riva_speech.asr.flashlight import FlashlightDecoding
from riva_speech.asr.gpu_streaming import GpuStreamingModel
from riva_speech.asr.greedy import GreedyDecoding
from riva_speech.asr.offline import OfflineRecognizer
from riva_speech.asr.pipeline import ONLINE, PipelineConfig
from riva_speech.asr.results import ResultBuilder
from riva_speech.asr.sharing import Shared
from riva_speech.asr.streaming import StreamingRecognizer
from riva_speech.asr.transducer import GreedySearch, TransducerDecoding
from riva_speech.asr.vad import VoiceActivity
from riva_speech.asr.writer import load_writer
from riva_speech.audio.features import LogMel
from riva_speech.errors import DamagedArchiveError, UnsupportedError
from riva_speech.sessions import cuda
from riva_speech.sessions.onnx import OnnxSession
from riva_speech.sessions.opening import existing, opener
from riva_speech.text.lexicon import Lexicon
from riva_speech.text.spelling import Speller
from riva_speech.text.vocabulary import Vocabulary

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from riva_speech.asr.acoustic import StreamingModel
    from riva_speech.asr.ctc import Decoding
    from riva_speech.asr.decoder_config import FlashlightConfig
    from riva_speech.asr.writer import Writer
    from riva_speech.sessions import Session, SessionOpener

    OpenGraph = Callable[[str], Session]

_log = logging.getLogger(__name__)

Recognizer: TypeAlias = OfflineRecognizer | StreamingRecognizer

# The files of a deployed pipeline, in its version folder.
PIPELINE_FILE = "riva_bls_config.yaml"
VOCABULARY_FILE = "riva_decoder_vocabulary.txt"
FEATURIZER_FILE = "featurizer.npz"
VAD_FILE = "silero_vad.onnx"
TOKENIZER_FILE = "tokenizer.model"
LEXICON_FILE = "lexicon.txt"
LANGUAGE_MODEL_FILE = "decoding_language_model.bin"
# The keys under which a pipeline's configuration names its acoustic models, sibling folders: the
# model, for streams the one that begins them, and a transducer's prediction network and joint.
ACOUSTIC_MODEL = "acoustic_model"
FIRST_ACOUSTIC_MODEL = "first_acoustic_model"
DECODER_JOINT_MODEL = "decoder_joint_model"


def load_recognizers(
    root: Path, *, threads: int = 0, open_session: SessionOpener | None = None
) -> list[Recognizer]:
    """Load every speech recognition pipeline of a repository; see ``load_recognizer``.

    Raises:
        ArtifactMissingError: The repository or one of its files is missing.
        DamagedArchiveError: A file cannot be read.
    """
    shared = Shared()
    with staging.reading(root):
        folders = [root / name for name in repository.list_models(root)]
        pipelines = [folder for folder in folders if _is_pipeline(folder)]
        return [
            load_recognizer(folder, threads=threads, open_session=open_session, shared=shared)
            for folder in pipelines
        ]


def load_recognizer(
    folder: Path,
    *,
    threads: int = 0,
    open_session: SessionOpener | None = None,
    shared: Shared | None = None,
) -> Recognizer:
    """Load the pipeline in one model folder; the errors are those of ``load_recognizers``.

    ``open_session`` opens the graphs, each by its folder: where the pipeline is a model of Triton,
    these are run by Triton too. What ``shared`` holds already is not loaded again, and what is
    loaded is added to it.
    """
    version = folder / repository.VERSION
    shared = shared or Shared()
    open_graph = partial(_open_graph, open_session or opener(threads), folder)
    config = _read_pipeline(version / PIPELINE_FILE)
    log_mel = LogMel.load(config.acoustic.features, existing(version / FEATURIZER_FILE))
    decoding = _decoding(version, config, shared, open_graph)
    writer = load_writer(version, config, shared)
    activity = _activity(version, config, shared)
    if config.type == ONLINE:
        model, lag = _streaming_model(config, open_graph)
        results = _results(config, writer, lag)
        return StreamingRecognizer(config, log_mel, model, decoding, results, activity)
    offline = OfflineAcousticModel(open_graph(ACOUSTIC_MODEL))
    results = _results(config, writer)
    return OfflineRecognizer(config, log_mel, offline, decoding, results, activity)


def _open_graph(open_session: SessionOpener, folder: Path, parameter: str) -> Session:
    """Open the graph that a pipeline's configuration names by a parameter."""
    return open_session(_acoustic_folder(folder, parameter))


def _streaming_model(config: PipelineConfig, open_graph: OpenGraph) -> tuple[StreamingModel, int]:
    """Return what encodes streams, and how many steps it gives lag behind what it has heard."""
    session = open_graph(ACOUSTIC_MODEL)
    if config.is_buffered:
        offline = OfflineAcousticModel(session)
        buffered = BufferedAcousticModel(
            offline, _buffer(config), config.acoustic.features.normalize
        )
        return buffered, buffered.delay_steps
    first = open_graph(FIRST_ACOUSTIC_MODEL)
    n_mels = config.acoustic.features.n_mels
    return _cache_aware(first, session)(first, session, config.streaming, n_mels), 0


def _cache_aware(first: Session, following: Session) -> type[StreamingAcousticModel]:
    """Return what runs a cache-aware model: on a GPU its caches stay there, where they can."""
    sessions = (first, following)
    if not all(isinstance(one, OnnxSession) and one.device == cuda.DEVICE for one in sessions):
        return StreamingAcousticModel
    try:
        cuda.load_runtime()
    except UnsupportedError as error:
        _log.warning("Caches of streams travel to the GPU and back: %s", error.message)
        return StreamingAcousticModel
    return GpuStreamingModel


def _activity(version: Path, config: PipelineConfig, shared: Shared) -> VoiceActivity | None:
    """Return what tells speech from noise, where a pipeline has that.

    One thread is enough: a step takes less time than waking another one up.
    """
    if config.vad is None:
        return None
    path = existing(version / VAD_FILE)
    session = shared.once([path], partial(OnnxSession, path, threads=1))
    return VoiceActivity(session, config.vad, config.acoustic.features.sample_rate)


def _decoding(
    version: Path, config: PipelineConfig, shared: Shared, open_graph: OpenGraph
) -> Decoding:
    """Return a pipeline's way of decoding, or its fallback where a library is missing."""
    vocabulary = _vocabulary(version, config)
    speller = _speller(version, vocabulary)
    if config.acoustic.transducer:
        joint = open_graph(DECODER_JOINT_MODEL)
        search = GreedySearch(joint, config.acoustic.transducer, vocabulary.blank)
        booster = Booster(vocabulary, speller, TRANSDUCER_LIMIT)
        return TransducerDecoding(search, vocabulary, booster)
    greedy = GreedyDecoding(vocabulary, Booster(vocabulary, speller, CTC_LIMIT))
    chosen = config.decoder
    if chosen.type != flashlight.NAME:
        return greedy
    if chosen.fallback and not flashlight.is_available():
        _log.warning(
            "Model %s is decoded by %s: flashlight-text is not installed. For better words: "
            "pip install '%s'",
            config.name,
            chosen.fallback,
            flashlight.REQUIREMENT,
        )
        return greedy
    files = [version / name for name in (LEXICON_FILE, LANGUAGE_MODEL_FILE)]
    settings = chosen.flashlight
    make = partial(_flashlight, version, vocabulary, settings, speller)
    of_words = shared.once(files, make, vocabulary, settings.use_lexicon_free_decoding)
    return of_words.searching(settings)


def _results(config: PipelineConfig, writer: Writer, lag: int = 0) -> ResultBuilder:
    """Return what times and writes words.

    Steps of buffered streams lag behind what was heard, and all do behind leading silence.
    """
    acoustic = config.acoustic
    delay = config.decoder.asr_model_delay - lag - acoustic.steps(config.leading_silence)
    stride = acoustic.ms_per_timestep
    return ResultBuilder(stride, delay, writer, writer.is_quick, writer.classes)


def _buffer(config: PipelineConfig) -> BufferConfig:
    acoustic = config.acoustic
    seconds = (config.chunk_size, config.left_padding_size, config.right_padding_size)
    chunk, left, right = map(acoustic.steps, seconds)
    return BufferConfig(
        chunk, left, right, acoustic.stride, acoustic.ms_per_timestep, acoustic.features.n_mels
    )


def _vocabulary(version: Path, config: PipelineConfig) -> Vocabulary:
    return Vocabulary.load(existing(version / VOCABULARY_FILE), config.acoustic.vocabulary_type)


def _flashlight(
    version: Path, vocabulary: Vocabulary, config: FlashlightConfig, speller: Speller
) -> FlashlightDecoding:
    model = version / LANGUAGE_MODEL_FILE
    lexicon = None
    if not config.use_lexicon_free_decoding:
        path = existing(version / LEXICON_FILE)
        try:
            lexicon = Lexicon.load(path, vocabulary)
        except ValueError as error:
            raise DamagedArchiveError(f"{path} cannot be read: {error}") from error
    has_model = model.is_file()
    return FlashlightDecoding(vocabulary, config, lexicon, model if has_model else None, speller)


def _speller(version: Path, vocabulary: Vocabulary) -> Speller:
    """Return what spells the words of phrases; older pipelines have no tokenizer beside them."""
    tokenizer = version / TOKENIZER_FILE
    return Speller(vocabulary, tokenizer if tokenizer.is_file() else None)


def _is_pipeline(folder: Path) -> bool:
    return (folder / repository.VERSION / PIPELINE_FILE).is_file()


def _read_pipeline(path: Path) -> PipelineConfig:
    try:
        return PipelineConfig.from_mapping(safe_yaml.load_mapping(path.read_text()))
    except ValueError as error:
        raise DamagedArchiveError(f"{path} cannot be read: {error}") from error


def _acoustic_folder(folder: Path, parameter: str) -> Path:
    name = repository.read_config(folder).parameters.get(parameter, "")
    if not name or "/" in name:
        raise DamagedArchiveError(f"the configuration of {folder} names no {parameter}")
    return folder.parent / name
