"""Makes ``tiny.riva``; needs the extra ``nemo``."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

from riva_speech.servicemaker.conversion import ConvertOptions, convert  # noqa: E402 - after the path
from support.checkpoints import Architecture, save_checkpoint  # noqa: E402 - as above

TINY = Architecture(cache_aware=True, bpe=False, width=16, layers=1, positions=600)


def main() -> None:
    """Save a checkpoint and convert it."""
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = Path(folder) / "tiny.nemo"
        save_checkpoint(TINY, checkpoint)
        convert(
            ConvertOptions(
                source=checkpoint,
                out=HERE / "tiny.riva",
                key=None,
                force=True,
                device="cpu",
                onnx_opset=17,
            )
        )


if __name__ == "__main__":
    main()
