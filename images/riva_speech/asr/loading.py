"""From a model repository to recognisers."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from riva_speech import repository, safe_yaml
from riva_speech.asr.acoustic import OfflineAcousticModel, StreamingAcousticModel
from riva_speech.asr.pipeline import ONLINE, PipelineConfig
from riva_speech.asr.recognizer import OfflineRecognizer, StreamingRecognizer
from riva_speech.asr.results import ResultBuilder
from riva_speech.audio.features import LogMel
from riva_speech.errors import DamagedArchiveError
from riva_speech.sessions.opening import existing, opener
from riva_speech.text.vocabulary import Vocabulary

if TYPE_CHECKING:
    from pathlib import Path

    from riva_speech.sessions import SessionOpener

Recognizer: TypeAlias = OfflineRecognizer | StreamingRecognizer

# The files of a deployed pipeline, in its version folder.
PIPELINE_FILE = "riva_bls_config.yaml"
VOCABULARY_FILE = "riva_decoder_vocabulary.txt"
FEATURIZER_FILE = "featurizer.npz"
# The keys under which a pipeline's configuration names its acoustic models, sibling folders: the
# model, and for streams the one that begins them.
ACOUSTIC_MODEL = "acoustic_model"
FIRST_ACOUSTIC_MODEL = "first_acoustic_model"


def load_recognizers(root: Path, *, threads: int = 0) -> list[Recognizer]:
    """Load every speech recognition pipeline of a repository.

    Raises:
        ArtifactMissingError: The repository or one of its files is missing.
        DamagedArchiveError: A file cannot be read.
    """
    folders = [root / name for name in repository.list_models(root)]
    pipelines = [folder for folder in folders if _is_pipeline(folder)]
    return [load_recognizer(folder, threads=threads) for folder in pipelines]


def load_recognizer(
    folder: Path, *, threads: int = 0, open_session: SessionOpener | None = None
) -> Recognizer:
    """Load the pipeline in one model folder; the errors are those of ``load_recognizers``.

    ``open_session`` opens the acoustic models, each by its folder: where the pipeline is a model of
    Triton, these are run by Triton too.
    """
    version = folder / repository.VERSION
    config = _read_pipeline(version / PIPELINE_FILE)
    log_mel = LogMel.load(config.acoustic.features, existing(version / FEATURIZER_FILE))
    vocabulary = Vocabulary.load(
        existing(version / VOCABULARY_FILE), config.acoustic.vocabulary_type
    )
    results = ResultBuilder(
        vocabulary, config.acoustic.ms_per_timestep, config.decoder.asr_model_delay
    )
    open_session = open_session or opener(threads)
    session = open_session(_acoustic_folder(folder, ACOUSTIC_MODEL))
    if config.type == ONLINE:
        first = open_session(_acoustic_folder(folder, FIRST_ACOUSTIC_MODEL))
        model = StreamingAcousticModel(first, session, config.streaming)
        return StreamingRecognizer(config, log_mel, model, results)
    return OfflineRecognizer(config, log_mel, OfflineAcousticModel(session), results)


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
