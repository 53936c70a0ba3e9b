"""Writing ONNX graphs of NeMo's modules, and comparing them with what they were made of.

NeMo's exporter holds a model's weights several times while it writes them. Most graphs are
therefore written without them, by the same tracer of torch, and given their weights afterwards, one
tensor at a time.
"""

from __future__ import annotations

import logging
import warnings
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from riva_speech.errors import SpeechError, UnsupportedError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from riva_speech.asr.pipeline import AcousticConfig
    from riva_speech.servicemaker.families.sharing import Destination

# What a graph may differ from the model it was made of, in full precision.
TOLERANCE = 1e-3
_CHECKED_FRAMES = 400
_CHECKED_CHUNKS = 3
# What modules raise that a checkpoint may ask for, and that NeMo builds, but cannot run any more.
_FAILURES = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    RuntimeError,
    TypeError,
    ValueError,
)
_log = logging.getLogger(__name__)


def export_graph(part: Any, path: Path, to: Destination) -> Path:
    """Export a model, or one of its modules, as NeMo's exporter calls it; return ``path``.

    Raises:
        UnsupportedError: It does not run, as with kinds of subsampling that NeMo no longer masks.
    """
    try:
        _trace(part, path, to)
    except _FAILURES as error:
        reason = (str(error).splitlines() or [""])[0]
        raise UnsupportedError(
            f"{path.name} cannot be exported, for NeMo's model does not run: "
            f"{type(error).__name__}: {reason}"
        ) from error
    return path


def _trace(part: Any, path: Path, to: Destination) -> None:
    from riva_speech.servicemaker.families import tracing  # noqa: PLC0415 - needs torch

    with quiet(path), _prepared(part, path) as example:
        axes = part.dynamic_shapes_for_export(use_dynamo=False)
        # What comes after these are switches, which are never tensors.
        names = part.input_names[: len(example)]
        interface = tracing.Interface(names, part.output_names, axes)
        module = tracing.ForExport(part, _forward(part))
        tracing.write_graph(module, example, path, interface, to)


def export_rearranged(part: Any, path: Path, to: Destination) -> Path:
    """Run NeMo's own exporter on a module whose weights it rearranges; return ``path``.

    Those are recurrent layers, which are small.
    """
    import onnx  # noqa: PLC0415 - comes with the extra nemo

    with quiet(path):
        part.export(str(path), onnx_opset_version=to.onnx_opset)
    model = onnx.load(path)
    to.weights.move_in(model.graph)
    onnx.save(model, path)
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


@contextmanager
def _prepared(part: Any, path: Path) -> Iterator[Any]:
    """Make a part ready to be traced, as NeMo's exporter does; give the inputs to trace it with."""
    from nemo.core.classes import typecheck  # noqa: PLC0415 - takes long to import
    from nemo.core.classes.exportable import Exportable  # noqa: PLC0415 - as above

    example = part.input_module.input_example()
    typecheck.set_typecheck_enabled(enabled=False)
    try:
        for module in part.modules():
            if isinstance(module, Exportable):
                module._prepare_for_export(noreplace=True)  # noqa: SLF001 - NeMo's exporter is apart
        part._prepare_for_export(output=str(path), input_example=example)  # noqa: SLF001 - as above
        yield example
    finally:
        typecheck.set_typecheck_enabled(enabled=True)
        part._export_teardown()  # noqa: SLF001 - as above


def _forward(part: Any) -> Callable[..., Any]:
    """Return what computes a part's exported outputs."""
    forward: Callable[..., Any] = getattr(part, "forward_for_export", part.forward)
    return forward


def check_graph(part: Any, path: Path, acoustic: AcousticConfig) -> None:
    """Run a graph for whole utterances on noise, and compare it with what it was exported from.

    Raises:
        SpeechError: They differ.
    """
    import torch  # noqa: PLC0415 - comes with NeMo

    from riva_speech.sessions.onnx import OnnxSession  # noqa: PLC0415 - loads ONNX Runtime

    device = next(part.parameters()).device
    frames = _checked_frames(acoustic)
    noise = np.random.default_rng(0).normal(size=(1, acoustic.features.n_mels, frames))
    features = {"audio_signal": noise.astype(np.float32), "length": np.array([frames])}
    with torch.inference_mode():
        inputs = {name: torch.from_numpy(value).to(device) for name, value in features.items()}
        expected = _forward(part)(**inputs)
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


def _checked_frames(acoustic: AcousticConfig) -> int:
    """Return how many frames show what a graph hears: more than a chunk, where it has chunks."""
    _, right = acoustic.offline_context or (0, 0)
    wanted = max(_CHECKED_FRAMES, _CHECKED_CHUNKS * (right + 1) * acoustic.stride)
    return min(wanted, acoustic.max_steps * acoustic.stride)
