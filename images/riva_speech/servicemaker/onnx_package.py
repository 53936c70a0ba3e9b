"""The package onnx, which some of servicemaker needs, and not every installation has."""

from __future__ import annotations

from importlib.util import find_spec

from riva_speech.errors import UnsupportedError


def require_onnx(who_needs: str, otherwise: str = "") -> None:
    """Refuse what cannot be done without it.

    Args:
        who_needs: How the sentence begins: "int8 weights need".
        otherwise: What may be done instead of installing it.

    Raises:
        UnsupportedError: It is not installed.
    """
    if find_spec("onnx") is None:
        raise UnsupportedError(
            f"{who_needs} the package onnx, which is not installed",
            hint="pip install onnx" + (f", or {otherwise}" if otherwise else ""),
        )
