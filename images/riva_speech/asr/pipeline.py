"""What a speech recognition pipeline is made of: the values that riva-build sets.

They travel as ``pipeline.yaml`` values from the RMIR into the model repository, where the
server reads them.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field, fields
from typing import Any, TypeVar

from riva_speech.asr.decoder_config import (
    DECODERS,
    TRANSDUCER_DECODER,
    DecoderConfig,
    FlashlightConfig,
)
from riva_speech.asr.streaming_config import (
    AttentionContext,
    StreamingConfig,
    read_context,
    read_streaming,
)
from riva_speech.audio.features import FeatureConfig
from riva_speech.errors import DamagedArchiveError, UnsupportedError
from riva_speech.text.vocabulary import VocabularyType

ONLINE = "online"
OFFLINE = "offline"

# What writes words as they were spoken, where nothing else can write them.
VERBATIM = "verbatim"

# What Silero's model hears, in Hz.
VAD_RATES = (8000, 16000)
_LONGEST_WINDOW_MS = 60_000
# In seconds; more is no moment around an utterance, but work for nothing.
LONGEST_SILENCE = 10.0
_T = TypeVar("_T")


@dataclass(frozen=True)
class EndpointingConfig:
    """When an utterance begins and ends; Riva's names and defaults.

    Windows (``*_history``) in milliseconds, thresholds as the share of frames in the window that
    are not blank (start) or blank (stop). A ``stop_history`` of 0 never ends an utterance. Those
    of the first pass (``*_eou``) only announce an end, on a partial result; 0 announces none.
    """

    start_history: int = 300
    start_th: float = 0.2
    stop_history: int = 800
    stop_th: float = 0.98
    stop_history_eou: int = 0
    stop_th_eou: float = 0.98

    def __post_init__(self) -> None:
        """Refuse, with a ValueError, what no window or threshold can be."""
        windows = (self.start_history, self.stop_history, self.stop_history_eou)
        thresholds = (self.start_th, self.stop_th, self.stop_th_eou)
        # Written so that NaN, which compares as false, is refused too.
        if not all(0 <= window <= _LONGEST_WINDOW_MS for window in windows):
            raise ValueError(f"endpointing windows are 0 to {_LONGEST_WINDOW_MS} ms")
        if not all(0 <= threshold <= 1 for threshold in thresholds):
            raise ValueError("endpointing thresholds are shares, 0 to 1")


@dataclass(frozen=True)
class VadConfig:
    """When Silero's model takes sound for speech; Riva's names and defaults.

    ``onset`` and ``offset`` are probabilities, all else is in seconds.
    """

    onset: float = 0.85
    offset: float = 0.3
    min_duration_on: float = 0.2
    min_duration_off: float = 0.5
    pad_onset: float = 0.3
    pad_offset: float = 0.08

    def __post_init__(self) -> None:
        """Refuse, with a ValueError, what is no probability or duration."""
        durations = (self.min_duration_on, self.min_duration_off, self.pad_onset, self.pad_offset)
        # Written so that NaN, which compares as false, is refused too.
        if not all(0 <= one <= 1 for one in (self.onset, self.offset)):
            raise ValueError("onset and offset are probabilities, 0 to 1")
        if not all(0 <= one <= _LONGEST_WINDOW_MS / 1000 for one in durations):
            raise ValueError(f"durations are 0 to {_LONGEST_WINDOW_MS / 1000:g} s")


@dataclass(frozen=True)
class TextConfig:
    """What happens to the words of a transcript; each needs files beside the pipeline.

    Where pynini, which runs grammars, is not installed, ``fallback`` is done instead, if it is set.
    """

    inverse_normalisation: bool = False
    speech_hints: bool = False
    profane_words: bool = False
    fallback: str = ""


@dataclass(frozen=True)
class TransducerConfig:
    """What is particular to RNN-T and TDT models.

    ``durations`` are the steps that a TDT model's last outputs stand for; RNN-T models have none.
    One encoder step, a vector of ``encoder_width`` numbers, gives at most ``max_symbols`` tokens.
    The two states of the prediction network have the shape [layers, batch, width], of which
    ``state_shape`` is [layers, width].
    """

    durations: tuple[int, ...]
    max_symbols: int
    encoder_width: int
    state_shape: tuple[int, int]


@dataclass(frozen=True)
class AcousticConfig:
    """What the acoustic model is: the facts that nemo2riva reads from the checkpoint.

    ``max_steps`` is the number of encoder steps that its positional encodings reach. Models with
    a ``transducer`` give encoder steps, all others log-probabilities of a CTC head.
    ``offline_context`` is how far the graph for whole utterances of a cache-aware model looks; -1
    is all that there is. It is None for other models and graphs, and in older archives.
    """

    features: FeatureConfig
    vocabulary_type: VocabularyType
    ms_per_timestep: int
    max_steps: int
    streaming: tuple[StreamingConfig, ...] = ()
    transducer: TransducerConfig | None = None
    offline_context: AttentionContext | None = None

    @property
    def stride(self) -> int:
        """Feature frames an encoder step."""
        return self.ms_per_timestep // self.features.frame_ms

    def steps(self, seconds: float) -> int:
        """Return a duration in encoder steps, rounded to whole ones."""
        return round(1000 * seconds / self.ms_per_timestep)

    @property
    def longest_steps(self) -> int:
        """How many steps of sound the graph for whole utterances takes.

        Causal convolutions may make a step more than the sound has, which has its position too.
        """
        return self.max_steps if self.offline_context is None else self.max_steps - 1

    @property
    def head(self) -> str:
        """What makes tokens of encoder steps: ``ctc``, ``rnnt`` or ``tdt``."""
        if self.transducer is None:
            return "ctc"
        return "tdt" if self.transducer.durations else "rnnt"

    def to_mapping(self) -> dict[str, Any]:
        """Return plain YAML values."""
        return _plain(asdict(self))

    @classmethod
    def from_mapping(cls, values: Any) -> AcousticConfig:  # noqa: ANN401 - from YAML
        """Build from a manifest's mapping; the errors are those of ``FeatureConfig``."""
        try:
            return cls(
                features=FeatureConfig.from_mapping(values["features"]),
                vocabulary_type=VocabularyType(values["vocabulary_type"]),
                ms_per_timestep=int(values["ms_per_timestep"]),
                max_steps=int(values["max_steps"]),
                streaming=tuple(read_streaming(entry) for entry in values["streaming"]),
                transducer=_transducer(values.get("transducer")),
                offline_context=_offline_context(values.get("offline_context")),
            )
        except (AttributeError, KeyError, OverflowError, TypeError, ValueError) as error:
            raise DamagedArchiveError(
                f"the acoustic model's description is malformed: {error}"
            ) from error


@dataclass(frozen=True)
class PipelineConfig:
    """One deployable recogniser.

    ``name`` is what clients put into ``RecognitionConfig.model``; ``type`` is ``online`` for
    streaming and ``offline`` for whole utterances. An offline pipeline decodes ``chunk_size``
    seconds at once, with the paddings as context on both sides of longer audio. So does an online
    one whose acoustic model is not cache-aware: it encodes each chunk with what lies around it.
    What is heard begins with ``leading_silence`` seconds of silence, whole steps of the model;
    whole utterances end with ``trailing_silence`` seconds of it.
    """

    name: str
    type: str
    language_code: str
    acoustic: AcousticConfig
    chunk_size: float
    left_padding_size: float = 0.0
    right_padding_size: float = 0.0
    leading_silence: float = 0.0
    trailing_silence: float = 0.0
    decoder: DecoderConfig = field(default_factory=DecoderConfig)
    endpointing: EndpointingConfig = field(default_factory=EndpointingConfig)
    text: TextConfig = field(default_factory=TextConfig)
    vad: VadConfig | None = None

    @property
    def is_buffered(self) -> bool:
        """Whether streams run through a model for whole utterances, in overlapping buffers."""
        return self.type == ONLINE and not self.acoustic.streaming

    @property
    def streaming(self) -> StreamingConfig:
        """The geometry of the graph that an online pipeline runs."""
        return self.acoustic.streaming[0]

    def to_mapping(self) -> dict[str, Any]:
        """Return plain YAML values."""
        return _plain(asdict(self))

    @classmethod
    def from_mapping(cls, values: Any) -> PipelineConfig:  # noqa: ANN401 - from YAML
        """Build from a manifest's mapping.

        Raises:
            DamagedArchiveError: A value is missing or of the wrong kind.
            UnsupportedError: A decoder that this version does not have.
        """
        try:
            # Archives of the first version have one padding for both sides.
            both = values.get("padding_size", 0.0)
            config = cls(
                name=str(values["name"]),
                type=str(values["type"]),
                language_code=str(values["language_code"]),
                acoustic=AcousticConfig.from_mapping(values["acoustic"]),
                chunk_size=float(values["chunk_size"]),
                left_padding_size=float(values.get("left_padding_size", both)),
                right_padding_size=float(values.get("right_padding_size", both)),
                leading_silence=float(values.get("leading_silence", 0.0)),
                trailing_silence=float(values.get("trailing_silence", 0.0)),
                decoder=_decoder(values["decoder"]),
                endpointing=_build(EndpointingConfig, values["endpointing"]),
                text=_build(TextConfig, values.get("text", {})),
                vad=_build(VadConfig, values["vad"]) if values.get("vad") else None,
            )
        except (AttributeError, KeyError, OverflowError, TypeError, ValueError) as error:
            raise DamagedArchiveError(
                f"the pipeline's description is malformed: {error}"
            ) from error
        for decoder in (config.decoder.type, config.decoder.fallback or DECODERS[0]):
            if decoder not in DECODERS:
                raise UnsupportedError(f"decoder {decoder!r} is not supported")
        if (config.decoder.type == TRANSDUCER_DECODER) != bool(config.acoustic.transducer):
            raise DamagedArchiveError(
                f"decoder {config.decoder.type!r} does not fit a {config.acoustic.head} head"
            )
        if config.vad and config.acoustic.features.sample_rate not in VAD_RATES:
            raise DamagedArchiveError("voice activity is not detected at the model's sample rate")
        paddings = (config.left_padding_size, config.right_padding_size)
        if not 0 < config.chunk_size < math.inf or not all(0 <= one < math.inf for one in paddings):
            raise DamagedArchiveError("a pipeline's chunks and paddings are not durations")
        silences = (config.leading_silence, config.trailing_silence)
        if not all(0 <= one <= LONGEST_SILENCE for one in silences):
            raise DamagedArchiveError("the silence around utterances is out of bounds")
        return config


def _build(kind: type[_T], values: Any) -> _T:  # noqa: ANN401 - from YAML
    known = {entry.name for entry in fields(kind)}  # type: ignore[arg-type]  # a dataclass
    if unknown := set(values) - known:
        raise ValueError(f"unknown keys {sorted(unknown)}")
    return kind(**values)


def _decoder(values: Any) -> DecoderConfig:  # noqa: ANN401 - from YAML
    flashlight = _build(FlashlightConfig, values.get("flashlight", {}))
    return _build(DecoderConfig, {**values, "flashlight": flashlight})


def _transducer(values: Any) -> TransducerConfig | None:  # noqa: ANN401 - from YAML
    if values is None:
        return None
    layers, width = values["state_shape"]
    config = TransducerConfig(
        durations=tuple(int(one) for one in values["durations"]),
        max_symbols=int(values["max_symbols"]),
        encoder_width=int(values["encoder_width"]),
        state_shape=(int(layers), int(width)),
    )
    if config.max_symbols < 1 or any(one < 0 for one in config.durations):
        raise ValueError("a transducer's durations and symbols are counts")
    return config


def _offline_context(values: Any) -> AttentionContext | None:  # noqa: ANN401 - as above
    return None if values is None else read_context(values)


def _plain(value: Any) -> Any:  # noqa: ANN401 - any YAML value
    """Turn tuples and enums into what YAML has."""
    if isinstance(value, dict):
        return {key: _plain(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(entry) for entry in value]
    return value.value if isinstance(value, VocabularyType) else value
