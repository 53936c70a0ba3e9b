"""The model repository: Triton's own layout, as typed values.

A repository is a folder of model folders, each with a ``config.pbtxt`` and a version folder
``1/``. Nothing inside names an absolute path, so a repository can be moved as a whole. The text
form is written and read with Triton's protobuf schema.

Names follow the official ones: ``riva-onnx-<name>-am-streaming[-offline]`` is an acoustic model,
``<name>-asr-bls-ensemble`` the pipeline that a client addresses as ``<name>``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2 as triton

from riva_speech.errors import ArtifactMissingError, DamagedArchiveError

if TYPE_CHECKING:
    from pathlib import Path

CONFIG_FILE = "config.pbtxt"
VERSION = "1"
PIPELINE_SUFFIX = "-asr-bls-ensemble"
# How long a stream may be silent before Triton forgets it.
MAX_IDLE_SECONDS = 60

_ON_CPU = triton.ModelInstanceGroup.KIND_CPU


@dataclass(frozen=True)
class Tensor:
    """An input or output: its name, Triton data type (``FP32``, ``INT64``, …) and dimensions.

    ``dims`` leaves out the batch; -1 stands for any size. Triton has no tensors of one number an
    entry of the batch: ``per_entry`` marks those, which it sees as [1] and the model as [].
    """

    name: str
    data_type: str
    dims: tuple[int, ...]
    per_entry: bool = False


@dataclass(frozen=True)
class Batching:
    """How Triton joins the requests of several clients into one run.

    It runs what waits when the model is free, and stops at a ``preferred`` size where it can. Where
    requests are ``ragged``, those of different shapes are given to the model together too.
    """

    preferred: tuple[int, ...] = ()
    ragged: bool = False


@dataclass(frozen=True)
class ModelConfig:
    """What a ``config.pbtxt`` says, as far as this project writes it.

    A ``stateful`` model is sent the requests of one stream in their order. ``on_gpu`` says where
    Triton runs it; left unsaid, Triton would take a GPU wherever it finds one. Without ``batching``
    each request is run by itself, whatever ``max_batch_size`` a request may have.
    """

    name: str
    backend: str
    max_batch_size: int
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    parameters: dict[str, str] = field(default_factory=dict)
    stateful: bool = False
    on_gpu: bool = False
    batching: Batching | None = None

    @property
    def has_one_shape(self) -> bool:
        """Whether inputs differ in their batch alone."""
        return all(size >= 0 for tensor in self.inputs for size in tensor.dims)

    def to_pbtxt(self) -> str:
        """Return the protobuf text form."""
        message = triton.ModelConfig(
            name=self.name,
            backend=self.backend,
            max_batch_size=self.max_batch_size,
            input=[_to_proto(tensor, triton.ModelInput) for tensor in self.inputs],
            output=[_to_proto(tensor, triton.ModelOutput) for tensor in self.outputs],
        )
        kind = triton.ModelInstanceGroup.KIND_GPU if self.on_gpu else _ON_CPU
        message.instance_group.add(count=1, kind=kind)
        # A map has no order of its own, and the same deployment must give the same bytes.
        for key, value in sorted(self.parameters.items()):
            message.parameters[key].string_value = value
        self._add_batching(message)
        return str(text_format.MessageToString(message))

    def _add_batching(self, message: triton.ModelConfig) -> None:
        preferred = self.batching.preferred if self.batching else ()
        if self.stateful:
            message.sequence_batching.CopyFrom(_sequence_batching())
            message.sequence_batching.oldest.preferred_batch_size.extend(preferred)
        elif self.batching:
            message.dynamic_batching.SetInParent()
            message.dynamic_batching.preferred_batch_size.extend(preferred)
            for tensor in message.input if self.batching.ragged else ():
                tensor.allow_ragged_batch = True

    @classmethod
    def from_pbtxt(cls, text: str) -> ModelConfig:
        """Read the protobuf text form.

        Raises:
            ValueError: The text is not a Triton model configuration.
        """
        try:
            message = text_format.Parse(text, triton.ModelConfig())
        except text_format.ParseError as error:
            raise ValueError(str(error)) from error
        return cls(
            name=message.name,
            backend=message.backend,
            max_batch_size=message.max_batch_size,
            inputs=tuple(_from_proto(tensor) for tensor in message.input),
            outputs=tuple(_from_proto(tensor) for tensor in message.output),
            parameters={key: value.string_value for key, value in message.parameters.items()},
            stateful=message.HasField("sequence_batching"),
            on_gpu=any(group.kind != _ON_CPU for group in message.instance_group),
            batching=_batching(message),
        )


def _batching(message: triton.ModelConfig) -> Batching | None:
    if message.HasField("sequence_batching"):
        return Batching(tuple(message.sequence_batching.oldest.preferred_batch_size))
    if message.HasField("dynamic_batching"):
        ragged = any(tensor.allow_ragged_batch for tensor in message.input)
        return Batching(tuple(message.dynamic_batching.preferred_batch_size), ragged)
    return None


def _to_proto(tensor: Tensor, kind: type[Any]) -> object:
    message = kind(name=tensor.name, data_type=f"TYPE_{tensor.data_type}", dims=tensor.dims)
    if tensor.per_entry:
        message.reshape.SetInParent()
    return message


def _from_proto(tensor: triton.ModelInput | triton.ModelOutput) -> Tensor:
    data_type = triton.DataType.Name(tensor.data_type).removeprefix("TYPE_")
    return Tensor(tensor.name, data_type, tuple(tensor.dims), tensor.HasField("reshape"))


def _sequence_batching() -> object:
    """Tie the requests of one stream to one instance, as the official repositories do."""
    controls = triton.ModelSequenceBatching.Control
    inputs = [
        triton.ModelSequenceBatching.ControlInput(
            name=name, control=[controls(kind=kind, int32_false_true=[0, 1])]
        )
        for name, kind in (
            ("START", controls.CONTROL_SEQUENCE_START),
            ("READY", controls.CONTROL_SEQUENCE_READY),
            ("END", controls.CONTROL_SEQUENCE_END),
        )
    ]
    number = controls(kind=controls.CONTROL_SEQUENCE_CORRID, data_type=triton.TYPE_UINT64)
    inputs.append(triton.ModelSequenceBatching.ControlInput(name="CORRID", control=[number]))
    return triton.ModelSequenceBatching(
        max_sequence_idle_microseconds=MAX_IDLE_SECONDS * 1_000_000,
        oldest=triton.ModelSequenceBatching.StrategyOldest(max_candidate_sequences=1024),
        control_input=inputs,
    )


def write_model(folder: Path, config: ModelConfig) -> Path:
    """Create a model's folder with its configuration; return its version folder."""
    version = folder / VERSION
    version.mkdir(parents=True)
    (folder / CONFIG_FILE).write_text(config.to_pbtxt())
    return version


def read_config(folder: Path) -> ModelConfig:
    """Read one model's configuration and check it against its folder.

    Raises:
        ArtifactMissingError: The folder holds no configuration or no version folder.
        DamagedArchiveError: The configuration is unreadable or bears another name.
    """
    path = folder / CONFIG_FILE
    if not path.is_file() or not (folder / VERSION).is_dir():
        raise ArtifactMissingError(
            f"{folder} is not a deployed model: {CONFIG_FILE} or {VERSION}/ is missing",
            hint="deploy it again with riva-deploy -f",
        )
    try:
        config = ModelConfig.from_pbtxt(path.read_text())
    except (ValueError, UnicodeDecodeError) as error:
        raise DamagedArchiveError(f"{path} cannot be read: {error}") from error
    if config.name != folder.name:
        raise DamagedArchiveError(
            f"{path} is the configuration of {config.name}, not of its folder"
        )
    return config


def list_models(repository: Path) -> list[str]:
    """Return the names of the deployed models, sorted.

    Raises:
        ArtifactMissingError: There is no such repository.
    """
    if not repository.is_dir():
        raise ArtifactMissingError(
            f"there is no model repository at {repository}", hint="make one with riva-deploy"
        )
    return sorted(path.parent.name for path in repository.glob(f"*/{CONFIG_FILE}"))
