"""How far the graph for whole utterances of a cache-aware model looks.

Its streams look as far as they learnt to. A whole utterance is there at once, so its graph may look
further, at what it was never trained with.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from riva_speech.errors import UsageError

if TYPE_CHECKING:
    from riva_speech.asr.streaming_config import AttentionContext

# What stands for all that there is, in NeMo's configuration as here.
UNLIMITED = -1
_OPTION = "--offline-context"


def refuse(asked: AttentionContext | None) -> None:
    """Refuse a context for a model that cannot have one.

    Raises:
        UsageError: One is asked for.
    """
    if asked is not None:
        raise UsageError(
            f"{_OPTION} is for cache-aware models, and this one is not",
            hint="leave the option out: streams and whole utterances share this model's one graph",
        )


def checked(asked: AttentionContext, most: int) -> AttentionContext:
    """Return a context in encoder steps, left and right, that a model can have.

    NeMo cuts an utterance into chunks of the right context and one step, of which each sees itself
    and as many whole ones before it as the left context holds.

    Args:
        asked: Steps; -1 is all that there are.
        most: How many steps the model's positions reach.

    Raises:
        UsageError: It reaches too far, or the left context is no whole number of chunks.
    """
    left, right = asked
    given = f"{_OPTION} {left} {right}"
    if not all(UNLIMITED <= one <= most for one in asked):
        raise UsageError(
            f"{given} is out of reach: the model's positions are {most} steps",
            hint=f"each is at most {most}, or {UNLIMITED} for all that there is",
        )
    # With all that comes behind, an utterance is one chunk, and the left context counts by steps.
    if right != UNLIMITED and left > 0 and left % (right + 1):
        whole = left // (right + 1) * (right + 1)
        nearest = sorted({whole or right + 1, whole + right + 1})
        raise UsageError(
            f"{given} is no whole number of chunks: LEFT must be a multiple of RIGHT + 1, "
            f"which is {right + 1}",
            hint=f"LEFT may be {' or '.join(map(str, nearest))}",
        )
    return asked


def look(encoder: Any, context: AttentionContext | None) -> None:
    """Let an encoder look as far as a context says, one that is not in its list too."""
    if context is not None:
        encoder.set_default_att_context_size(list(context))
