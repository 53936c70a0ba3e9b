"""`python -m quickstart` is `riva-qs`: what must hold before anything large is imported."""

from __future__ import annotations

import gc
import sys
from typing import NoReturn

_OBJECTS_BETWEEN_COLLECTIONS = 100_000


def main() -> NoReturn:
    """Run the command line and exit with its code."""
    # Looking for garbage while modules are imported finds none, and costs a tenth of a start.
    gc.set_threshold(_OBJECTS_BETWEEN_COLLECTIONS)
    try:
        from quickstart.cli import main as run

        run()
    except (ImportError, KeyboardInterrupt) as error:
        from quickstart.errors import interrupt_behind

        if not interrupt_behind(error):
            raise
        _interrupted()


def _interrupted() -> NoReturn:
    """Say that somebody was quicker than our imports, as the command line would."""
    from quickstart.console import Console
    from quickstart.errors import InterruptionError

    error = InterruptionError("interrupted")
    Console(json="--json" in sys.argv).error(error)
    sys.exit(error.code)


if __name__ == "__main__":
    main()
