"""Where things lie in a model location.

rmir/*.rmir               archives, fetched or the user's own
prebuilt/*.tar.gz         archives of deployed models, as NVIDIA has them for Jetson
generations/ID/models/    one complete model repository, with stamp.json and lock.json beside
models -> generations/ID/models
lock.json -> models/../lock.json
run/                      what the running server leaves: its log, pid and lock
.lock                     held by whoever changes any of this
"""

from __future__ import annotations

ARCHIVES = ("rmir/*.rmir", "prebuilt/*.tar.gz")
FETCHED, KNOWN = "rmir/.fetched.json", "rmir/.known.json"
STAMP, LOCK_FILE = "stamp.json", "lock.json"
# What is not yet, or no longer, what its name will be or was.
PARTIAL, NEW_LINK = ".partial", ".models-"
GONE = f"{PARTIAL}-gone-"
_PREBUILT = ".tar.gz"


def is_prebuilt(name: str) -> bool:
    """Say whether an archive holds deployed models, as NVIDIA's for Jetson do."""
    return name.endswith(_PREBUILT)


def is_archive(name: str) -> bool:
    """Say whether a file is something that becomes models."""
    return name.endswith((".rmir", _PREBUILT))


def place_of(name: str) -> str:
    """Return where an archive lies, relative to the model location."""
    return f"{'prebuilt' if is_prebuilt(name) else 'rmir'}/{name}"
