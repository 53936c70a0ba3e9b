"""Small grammars in the form of NeMo's text processing, made with pynini."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

ONES = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
TENS = {"twenty": "2", "thirty": "3"}


def write_itn(folder: Path) -> tuple[Path, Path]:
    """Write a tagger and a verbaliser that know numbers, money and days of May."""
    import pynini
    from pynini.lib import pynutil

    digit = pynini.string_map(list(zip(ONES, "0123456789", strict=True)))
    tens = pynini.string_map(list(TENS.items()))
    number = digit | tens + pynini.cross(" ", "") + digit | tens + pynutil.insert("0")
    cardinal = _token("cardinal", pynutil.insert('integer: "') + number + pynutil.insert('"'))
    # The amount stands before its currency here, and after it in what is written.
    amount = pynutil.insert('integer_part: "') + number + pynutil.insert('"')
    dollars = amount + pynini.cross(" ", " ") + pynini.cross("dollars", 'currency: "$"')
    days = pynini.string_map([("first", "1"), ("third", "3")])
    day = pynutil.insert('day: "') + days + pynutil.insert('" preserve_order: true')
    date = pynini.cross("may", 'month: "may"') + pynini.accep(" ") + day
    word = pynini.closure(_letters(), 1)
    name = pynutil.insert('name: "') + word + pynutil.insert('"')
    token = pynini.union(
        pynutil.add_weight(_tokens(cardinal), 1.1),
        pynutil.add_weight(_tokens(_token("money", dollars)), 1.0),
        pynutil.add_weight(_tokens(_token("date", date)), 1.0),
        pynutil.add_weight(_tokens(name), 100),
    )
    classify = (token + pynini.closure(pynini.accep(" ") + token)).optimize()
    return _save(folder / "classify.far", TOKENIZE_AND_CLASSIFY=classify), _verbaliser(folder)


def _verbaliser(folder: Path) -> Path:
    import pynini
    from pynini.lib import pynutil

    value = pynini.closure(_letters(), 1)
    integer = pynutil.delete('cardinal { integer: "') + value + pynutil.delete('" }')
    currency = pynutil.delete('money { currency: "') + value + pynutil.delete('" integer_part: "')
    money = currency + value + pynutil.delete('" }')
    month = pynutil.delete('date { month: "') + value + pynini.cross('" day: "', " ")
    date = month + value + pynutil.delete('" preserve_order: true }')
    return _save(
        folder / "verbalise.far",
        ALL=pynini.union(integer, money, date).optimize(),
        REDUP=pynini.accep("REDUP"),
    )


def write_hints(folder: Path) -> Path:
    """Write classes of hints: letters and digits one by one, digits alone, and months."""
    import pynini
    from pynini.lib import pynutil

    digit = pynini.string_map(list(zip(ONES, "0123456789", strict=True)))
    letter = pynini.string_map([(one, one.upper()) for one in "abc"])
    sequence = digit | letter
    sequence += pynini.closure(pynini.cross(" ", "") + sequence)
    # Some of NVIDIA's classes read, and write again, a space of any kind on either side; and all
    # are cheaper than nothing.
    margin = pynini.union(" ", "\t", "\u00a0")
    digits = margin + digit + pynini.closure(pynini.cross(" ", "") + digit, 1) + margin
    return _save(
        folder / "hints.far",
        **{
            "$OOV_ALPHA_NUMERIC_SEQUENCE": sequence.optimize(),
            "$OOV_NUMERIC_SEQUENCE": pynutil.add_weight(digits, -0.5).optimize(),
            "$MONTH": pynini.string_map([("may", "May")]),
            "$__SPACE__": pynini.accep(" "),
        },
    )


def _letters() -> Any:
    import pynini

    other = [chr(one) for one in range(1, 256) if not chr(one).isspace() and chr(one) != '"']
    return pynini.union(*(pynini.escape(one) for one in other))


def _token(kind: str, fields: Any) -> Any:
    from pynini.lib import pynutil

    return pynutil.insert(f"{kind} {{ ") + fields + pynutil.insert(" }")


def _tokens(fields: Any) -> Any:
    return _token("tokens", fields)


def _save(path: Path, **grammars: Any) -> Path:
    from pynini.export import export

    exporter = export.Exporter(str(path))
    for name, fst in grammars.items():
        exporter[name] = fst
    exporter.close()
    return path
