"""Write the grammars of inverse text normalisation that riva-build takes.

python -m recipes.itn_grammars FOLDER [--language en]

It needs NeMo's text processing, about a gigabyte, which neither riva-build nor a server does:

    python -m venv grammars && grammars/bin/pip install nemo_text_processing
    grammars/bin/python -m recipes.itn_grammars FOLDER
"""

from __future__ import annotations

import argparse
from importlib import import_module
from pathlib import Path
from typing import Any

_PACKAGE = "nemo_text_processing.inverse_text_normalization"


def main() -> None:
    """Compile the grammars of a language and write both files."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("folder", type=Path, help="where to write the two files")
    parser.add_argument(
        "--language", default="en", help="a language of NeMo's (default: %(default)s)"
    )
    parser.add_argument(
        "--cased", action="store_true", help="for models that write capitals (English only)"
    )
    chosen = parser.parse_args()
    chosen.folder.mkdir(parents=True, exist_ok=True)
    tagger = _module(chosen.language, "taggers.tokenize_and_classify").ClassifyFst
    case = {"input_case": "cased" if chosen.cased else "lower_cased"}
    classify = tagger(**(case if chosen.language == "en" else {})).fst
    verbalise = _module(chosen.language, "verbalizers.verbalize").VerbalizeFst().fst
    # The names are those that Sparrowhawk and Riva look for.
    _write(chosen.folder / "tokenize_and_classify.far", TOKENIZE_AND_CLASSIFY=classify)
    _write(chosen.folder / "verbalize.far", ALL=verbalise)


def _module(language: str, name: str) -> Any:
    try:
        return import_module(f"{_PACKAGE}.{language}.{name}")
    except ImportError as error:
        raise SystemExit(
            f"error: {error}\nhint: pip install nemo_text_processing, and name one of its languages"
        ) from error


def _write(path: Path, **grammars: Any) -> None:
    from pynini.export import export

    exporter = export.Exporter(str(path))
    for name, grammar in grammars.items():
        exporter[name] = grammar.optimize()
    exporter.close()
    print(f"{path}: {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
