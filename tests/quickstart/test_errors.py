from __future__ import annotations

import errno

import pytest

from quickstart import errors


def tree(kind: type[errors.RivaQsError]) -> list[type[errors.RivaQsError]]:
    return [kind, *(each for child in kind.__subclasses__() for each in tree(child))]


def test_the_drawn_tree_is_the_tree() -> None:
    """Every class is drawn in the module's docstring, with its code."""
    assert errors.__doc__ is not None
    drawn = [line.split() for line in errors.__doc__.splitlines()]
    for kind in tree(errors.RivaQsError):
        assert any(kind.__name__ in words and str(kind.code) in words for words in drawn), kind


@pytest.mark.parametrize("code", [2, 3, 4, 5, 6, 7, 9, 130])
def test_a_program_s_exit_code_becomes_its_kind(code: int) -> None:
    """The two halves share exit codes, so each one has a kind on this side."""
    assert errors.from_exit_code(code, "x").code == code


@pytest.mark.parametrize("code", [None, 0, 1, -9, 77])
def test_other_exit_codes_mean_plain_failure(code: int | None) -> None:
    """A code without a meaning is reported as a failure."""
    assert type(errors.from_exit_code(code, "x")) is errors.RivaQsError


@pytest.mark.parametrize(
    ("number", "code", "hint"),
    [
        (errno.ENOSPC, 7, "riva_model_loc"),
        (errno.EDQUOT, 7, "riva_model_loc"),
        (errno.ENOMEM, 7, "memory"),
        (errno.EACCES, 1, "may write"),
        (errno.EROFS, 1, "may write"),
        (errno.EIO, 1, ""),
    ],
)
def test_errors_of_the_system_name_the_file_and_the_way_out(
    number: int, code: int, hint: str
) -> None:
    """A full disk or a read-only folder becomes one of our errors, with the path."""
    ours = errors.from_os_error(OSError(number, "came back", "/some/file"))
    assert ours.code == code
    assert ours.message == "/some/file: came back"
    assert hint in ours.hint
