from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quickstart.catalog import locators
from quickstart.catalog.locators import Locator, parse, wrong_reference

HASH = "0123456789ABCDEF" * 4


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (
            "nvidia/riva/rmir_asr_conformer_en_us_str:2.19.0",
            Locator(
                "ngc",
                "nvidia/riva/rmir_asr_conformer_en_us_str:2.19.0",
                "rmir_asr_conformer_en_us_str",
                "2.19.0",
            ),
        ),
        ("org/name:1", Locator("ngc", "org/name:1", "name", "1")),
        ("asr_english_en_us", Locator("embedded", "asr_english_en_us", "asr_english_en_us")),
        (
            f"https://host:8443/a%20b/m.rmir?x=1#sha256={HASH}",
            Locator(
                "http",
                "https://host:8443/a%20b/m.rmir?x=1",
                "m",
                HASH[:12].lower(),
                "m.rmir",
                HASH.lower(),
            ),
        ),
        (
            f"file:///models/m.tar.gz#sha256={HASH}",
            Locator(
                "file",
                "file:///models/m.tar.gz",
                "m",
                HASH[:12].lower(),
                "m.tar.gz",
                HASH.lower(),
            ),
        ),
    ],
)
def test_each_kind_of_reference(text: str, found: Locator) -> None:
    """A reference says where a model is, what it is called and what it must be."""
    assert parse(text) == found
    assert wrong_reference(text) == ""


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("https://host/m.rmir", "lacks its hash: append #sha256="),
        (f"https://host/m.rmir#sha256={HASH[:-1]}", "lacks its hash"),
        (f"http://host/m.rmir#sha256={HASH}", "http:// is not https://"),
        (f"ftp://host/m.rmir#sha256={HASH}", "ftp:// is not https://"),
        (f"https:///m.rmir#sha256={HASH}", "names no host"),
        (f"https://host/#sha256={HASH}", "names no archive"),
        (f"https://host/..%2fm.rmir#sha256={HASH}x", "lacks its hash"),
        (f"https://host/m.zip#sha256={HASH}", "names no archive"),
        (f"file://host/m.rmir#sha256={HASH}", "is no local file"),
        (f"https://[::1/m.rmir#sha256={HASH}", "is no address"),
        ("org/team/more/name:1", "is not a model"),
        ("org/team/name", "is not a model"),
        ("name:1", "is not a model"),
        ("../name", "is not a model"),
        ("", "is not a model"),
    ],
)
def test_what_is_no_reference_is_explained(text: str, said: str) -> None:
    """Each mistake has a sentence of its own."""
    assert said in wrong_reference(text)


def test_a_password_is_not_repeated() -> None:
    """An address with a password is refused without showing it."""
    wrong = wrong_reference(f"https://me:sesame@host/m.rmir#sha256={HASH}")
    assert "password" in wrong
    assert "sesame" not in wrong


@given(
    st.text(alphabet=st.sampled_from("abz/:.#%@[]?sha256=-_ \\\0") | st.characters(), max_size=80)
)
def test_any_text_has_an_answer(text: str) -> None:
    """Whatever is given is a reference or a sentence, and a file name has no folder in it."""
    if not wrong_reference(text):
        found = locators.parse(text)
        assert "/" not in found.file
        assert found.name not in {"", ".", ".."}
