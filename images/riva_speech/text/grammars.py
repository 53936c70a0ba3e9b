"""Grammars as finite-state transducers: running them with pynini, the one importer of it.

A FAR file (OpenFst's archive) holds transducers over bytes, by name. Compiled grammars are read by
OpenFst itself, so they are to come only from where one would take programs.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from riva_speech.errors import DamagedArchiveError, UnsupportedError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

REQUIREMENT = "pynini>=2.1.6"

# Phrases cover as many words as they can, and as few phrases do. Grammars weigh what they read
# themselves: less than a phrase costs, if often below zero, and far less than a word passed over.
_WORD_COST = 100.0
_PHRASE_COST = 1.0


@dataclass(frozen=True)
class Pair:
    """One step of a transducer's path: the byte that it reads, and the one that it writes.

    Either is 0 where there is none.
    """

    read: int
    written: int


def is_available() -> bool:
    """Whether pynini is installed."""
    return find_spec("pynini") is not None


def require() -> None:
    """Refuse where pynini is not installed.

    Raises:
        UnsupportedError: It is not.
    """
    if not is_available():
        raise UnsupportedError(
            "text grammars (--wfst_tokenizer_model, --wfst_verbalizer_model, "
            "--speech_hints_model) need pynini, which is not installed",
            hint=f"pip install '{REQUIREMENT}' (Linux on x86-64), or build the pipeline with "
            "--wfst_fallback=verbatim",
        )


def read_far(path: Path) -> dict[str, Any]:
    """Return the transducers of a FAR file, by their names.

    Raises:
        UnsupportedError: pynini is not installed.
        DamagedArchiveError: The file is no FAR, or holds nothing.
    """
    require()
    import pynini  # noqa: PLC0415 - optional, and large

    try:
        found = dict(_entries(pynini.Far(str(path))))
    except (OSError, RuntimeError) as error:
        raise DamagedArchiveError(
            f"{path} is not a file of grammars that OpenFst reads: {error}",
            hint="give a .far file, such as NeMo's text processing exports",
        ) from error
    if not found:
        raise DamagedArchiveError(f"{path} holds no grammar")
    return found


def _entries(far: Any) -> Iterator[tuple[str, Any]]:  # noqa: ANN401 - pynini has no types
    while not far.done():
        yield far.get_key(), far.get_fst().copy()
        far.next()


def best_path(text: str, fst: Any) -> list[Pair] | None:  # noqa: ANN401 - pynini has no types
    """Return the cheapest path of a text through a transducer, or None where there is none."""
    import pynini  # noqa: PLC0415 - as above

    try:
        path = pynini.shortestpath(pynini.compose(pynini.escape(text), fst))
    except RuntimeError:  # what pynini says where no path is left
        return None
    state = path.start()
    if state < 0:
        return None
    pairs = []
    while path.num_arcs(state):
        arc = next(iter(path.arcs(state)))
        pairs.append(Pair(arc.ilabel, arc.olabel))
        state = arc.nextstate
    return pairs


def written(pairs: Sequence[Pair]) -> str:
    """Return what a path writes."""
    return bytes(pair.written for pair in pairs if pair.written).decode(errors="replace")


def without_margins(fst: Any) -> Any:  # noqa: ANN401 - pynini has no types
    """Return a transducer that reads and writes words with no space around them.

    Some of NVIDIA's classes want a space on either side of what they read, and write both again.
    Whatever reads words of ASCII as they are is returned as it is.
    """
    import pynini  # noqa: PLC0415 - as above
    from pynini.lib import pynutil  # noqa: PLC0415 - as above

    # Not any bytes: a no-break space, which may be a margin too, has none of white space.
    if pynini.compose(_bare(_ASCII), fst).num_states():
        return fst
    added, removed = (pynini.closure(one(" "), 0, 1) for one in (pynutil.insert, pynutil.delete))
    bare = _bare(_WORD_BYTES)
    reads, writes = added + bare + added, removed + bare + removed
    return pynini.compose(pynini.compose(reads, fst), writes).optimize()


@cache
def _bare(edges: Sequence[int]) -> Any:  # noqa: ANN401 - as above
    """Return what reads any text that begins and ends with one of these bytes."""
    import pynini  # noqa: PLC0415 - as above

    edge, within = _one_of(edges), pynini.closure(_one_of(_ANY_BYTES))
    return (edge + pynini.closure(within + edge, 0, 1)).optimize()


def _one_of(values: Sequence[int]) -> Any:  # noqa: ANN401 - as above
    """Return what reads one byte of these."""
    import pynini  # noqa: PLC0415 - as above

    return pynini.union(*(pynini.accep(f"[{one}]") for one in values)).optimize()


def phrase_rewriter(phrases: Sequence[str], classes: Mapping[str, Any]) -> Any:  # noqa: ANN401 - as above
    """Return the transducer that rewrites the classes in phrases, and passes over other words.

    Args:
        phrases: Words, and names of ``classes``, with spaces between them.
        classes: For each name the transducer from what is said to what is written.
    """
    import pynini  # noqa: PLC0415 - as above

    cost = pynini.accep("", weight=_PHRASE_COST)
    spoken = [_phrase(phrase, classes) + cost for phrase in phrases]
    unit = pynini.union(_other(), *spoken)
    # Not optimised: phrases come from clients, and that may take any amount of time.
    return unit + pynini.closure(pynini.accep(" ") + unit)


@cache
def _other() -> Any:  # noqa: ANN401 - as above
    """Return what passes over a word."""
    import pynini  # noqa: PLC0415 - as above

    word = pynini.closure(_one_of(_WORD_BYTES), 1).optimize()
    return word + pynini.accep("", weight=_WORD_COST)


# Every byte but 0, which stands for none; those of words; and those of words in ASCII.
_ANY_BYTES = range(1, 256)
_WORD_BYTES = tuple(one for one in _ANY_BYTES if not bytes([one]).isspace())
_ASCII = tuple(one for one in _WORD_BYTES if one < 128)  # noqa: PLR2004 - where ASCII ends


def _phrase(phrase: str, classes: Mapping[str, Any]) -> Any:  # noqa: ANN401 - as above
    import pynini  # noqa: PLC0415 - as above

    parts = [classes[one] if one in classes else pynini.escape(one) for one in phrase.split()]
    fst = pynini.accep(parts[0]) if isinstance(parts[0], str) else parts[0].copy()
    for part in parts[1:]:
        fst += pynini.accep(" ")
        fst += part
    return fst
