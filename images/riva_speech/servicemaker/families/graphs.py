"""Writing ONNX graphs: NeMo's exporter, and one file of weights that all graphs share."""

from __future__ import annotations

import hashlib
import logging
import warnings
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from riva_speech.errors import SpeechError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    import onnx

    from riva_speech.asr.pipeline import AcousticConfig

# Smaller tensors stay in the graphs: ONNX Runtime reads shapes from them while it loads.
_MIN_SHARED_BYTES = 1024
# Tensors begin on pages, so that the file can be mapped into memory.
_PAGE_BYTES = 4096
# What a graph may differ from the model it was made of, in full precision.
TOLERANCE = 1e-3
_CHECKED_FRAMES = 400
_log = logging.getLogger(__name__)


def export_graph(part: Any, path: Path, onnx_opset: int) -> Path:  # noqa: ANN401 - NeMo, no types
    """Run NeMo's exporter on a model, or on one of its modules; return ``path``."""
    with quiet(path):
        part.export(str(path), onnx_opset_version=onnx_opset)
    return path


@contextmanager
def quiet(path: Path) -> Iterator[None]:
    """Say which graph is exported, and nothing that torch's tracer has to say of it.

    It warns of every shape that it takes as constant; the graphs are checked against the model
    instead.
    """
    _log.info("Exporting %s", path.name)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def share_weights(graphs: Iterable[Path], weights: Path) -> None:
    """Move the large tensors of all graphs into one file that each of them refers to.

    Tensors with the same content are stored once, so a second graph of the same model costs
    little more than its nodes.
    """
    import onnx  # noqa: PLC0415 - comes with the extra nemo

    stored: dict[bytes, int] = {}
    with weights.open("wb") as file:
        for path in graphs:
            model = onnx.load(path)
            _lift_constants(model.graph)
            for tensor in model.graph.initializer:
                _externalise(tensor, weights.name, file, stored)
            onnx.save(model, path)


def _lift_constants(graph: onnx.GraphProto) -> None:
    """Turn large ``Constant`` nodes, such as positional encodings, into initializers.

    Only those can lie outside the graph.
    """
    for node in [node for node in graph.node if node.op_type == "Constant"]:
        tensor = node.attribute[0].t
        if len(tensor.raw_data) >= _MIN_SHARED_BYTES:
            tensor.name = node.output[0]
            graph.initializer.append(tensor)
            graph.node.remove(node)


def _externalise(
    tensor: onnx.TensorProto, location: str, file: IO[bytes], stored: dict[bytes, int]
) -> None:
    from onnx.external_data_helper import set_external_data  # noqa: PLC0415 - as onnx

    data = tensor.raw_data
    if len(data) < _MIN_SHARED_BYTES:
        return
    digest = hashlib.sha256(data).digest()
    if digest not in stored:
        file.write(bytes(-file.tell() % _PAGE_BYTES))
        stored[digest] = file.tell()
        file.write(data)
    set_external_data(tensor, location, offset=stored[digest], length=len(data))
    tensor.ClearField("raw_data")
    tensor.data_location = tensor.EXTERNAL


def keep_inputs(path: Path) -> None:
    """Give a graph back the input ``length``, which the exporter drops where nothing reads it.

    So all families are called the same way.
    """
    import onnx  # noqa: PLC0415 - comes with the extra nemo

    model = onnx.load(path)
    names = {value.name for value in model.graph.input}
    if "audio_signal" not in names or "length" in names:
        return
    batch = model.graph.input[0].type.tensor_type.shape.dim[0].dim_param
    length = onnx.helper.make_tensor_value_info("length", onnx.TensorProto.INT64, [batch])
    model.graph.input.append(length)
    onnx.save(model, path)


def check_graph(part: Any, path: Path, acoustic: AcousticConfig) -> None:  # noqa: ANN401 - no types
    """Run a graph for whole utterances on noise, and compare it with what it was exported from.

    Raises:
        SpeechError: They differ.
    """
    import torch  # noqa: PLC0415 - comes with NeMo

    from riva_speech.sessions.onnx import OnnxSession  # noqa: PLC0415 - loads ONNX Runtime

    device = next(part.parameters()).device
    noise = np.random.default_rng(0).normal(size=(1, acoustic.features.n_mels, _CHECKED_FRAMES))
    features = {"audio_signal": noise.astype(np.float32), "length": np.array([_CHECKED_FRAMES])}
    with torch.inference_mode():
        inputs = {name: torch.from_numpy(value).to(device) for name, value in features.items()}
        expected = getattr(part, "forward_for_export", part.forward)(**inputs)
    expected = expected[0] if isinstance(expected, tuple) else expected
    got = next(iter(OnnxSession(path).run(features).values()))
    difference = float(np.abs(got - expected.cpu().numpy()).max())
    if not difference <= TOLERANCE:
        raise SpeechError(
            f"the exported graph {path.name} differs from NeMo by {difference:.2g}, which is more "
            f"than {TOLERANCE:g}",
            hint="try another --onnx-opset",
        )
    _log.info("%s agrees with NeMo within %.2g", path.name, difference)
