"""NeMo without its chatter."""

from __future__ import annotations

import logging
import warnings
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path


def hush() -> None:
    """Import NeMo and let only its errors through."""
    warnings.filterwarnings("ignore")
    logging.disable(logging.WARNING)
    import nemo.collections.asr  # it must be told before it is imported
    from nemo.utils import logging as nemo_logging

    del nemo
    nemo_logging.set_verbosity(nemo_logging.ERROR)


def restore(checkpoint: Path) -> Any:
    """Load a CTC model from a `.nemo` file, ready to transcribe on the CPU."""
    hush()
    from nemo.collections.asr.models import EncDecCTCModelBPE

    return EncDecCTCModelBPE.restore_from(str(checkpoint), map_location="cpu").eval()
