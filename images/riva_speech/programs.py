"""The doors of the programs, so light that Ctrl-C is answered before the rest is imported.

A program imports for up to seconds before it can say anything. An interrupt in that time ends it as
any later one does: with its exit code, and without a traceback.
"""

from __future__ import annotations

import importlib
import sys

from riva_speech.program import INTERRUPTED, is_interruption


def nemo2riva() -> None:
    """Enter ``nemo2riva``."""
    _enter("riva_speech.servicemaker.nemo2riva")


def riva_build() -> None:
    """Enter ``riva-build``."""
    _enter("riva_speech.servicemaker.riva_build")


def riva_deploy() -> None:
    """Enter ``riva-deploy``."""
    _enter("riva_speech.servicemaker.riva_deploy")


def deploy_all_models() -> None:
    """Enter ``deploy_all_models``."""
    _enter("riva_speech.servicemaker.deploy_all_models")


def start_riva() -> None:
    """Enter ``start-riva``."""
    _enter("riva_speech.server.start_riva")


def riva_probe() -> None:
    """Enter ``riva-probe``."""
    _enter("riva_speech.server.probe")


def _enter(module: str) -> None:
    """Run the ``main`` of a module."""
    try:
        importlib.import_module(module).main()
    except (ImportError, KeyboardInterrupt) as error:
        if not is_interruption(error):
            raise
        sys.exit(INTERRUPTED)
