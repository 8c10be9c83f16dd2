"""Errors: a kind, a message, a hint, an exit status, all of which survive a process border."""

from __future__ import annotations

import pickle

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from petlbench.core.errors import InputError, PetlbenchError, RunError, unknown_name

TEXT = st.sampled_from(["", "plain", "two\nlines", "ünïcode 漢", "a'b\"c{}%s", "\x00"])
METHODS = ("adapter", "bitfit", "fpt", "fpt_plus", "lora", "vpt")


@pytest.mark.parametrize(("cls", "status"), [(PetlbenchError, 1), (RunError, 1), (InputError, 2)])
def test_every_kind_of_error_has_its_exit_status(cls: type[PetlbenchError], status: int) -> None:
    assert cls("x").exit_status == status
    assert issubclass(cls, PetlbenchError)


def test_the_text_of_an_error_is_its_message() -> None:
    error = InputError("no such thing", hint="look elsewhere", kind="unknown_thing")
    assert str(error) == "no such thing"
    assert (error.message, error.hint, error.kind) == ("no such thing", "look elsewhere", "unknown_thing")


@settings(max_examples=30)
@given(st.sampled_from([PetlbenchError, RunError, InputError]), TEXT, TEXT, TEXT)
def test_an_error_crosses_a_process_border_whole(cls: type[PetlbenchError], message: str, hint: str, kind: str) -> None:
    back = pickle.loads(pickle.dumps(cls(message, hint=hint, kind=kind)))
    assert type(back) is cls
    assert (back.message, back.hint, back.kind, back.exit_status) == (message, hint, kind, cls.exit_status)


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("fpt-plus", "did you mean fpt_plus?"),
        ("lorra", "did you mean lora?"),
        ("adaptor", "did you mean adapter?"),
    ],
)
def test_an_unknown_name_is_answered_with_the_nearest(name: str, hint: str) -> None:
    error = unknown_name("method", name, METHODS)
    assert isinstance(error, InputError)
    assert error.message == f"unknown method '{name}'"
    assert error.hint == hint
    assert error.kind == "unknown_method"


def test_a_name_far_from_all_is_answered_with_all_in_order() -> None:
    assert unknown_name("method", "zzz", reversed(METHODS)).hint == "known: " + ", ".join(METHODS)


def test_a_hint_takes_the_place_of_the_list_but_not_of_near_names() -> None:
    assert unknown_name("backbone", "zzz", METHODS, hint="see timm").hint == "see timm"
    assert unknown_name("backbone", "loro", METHODS, hint="see timm").hint == "did you mean lora?"


def test_with_nothing_known_the_hint_says_so() -> None:
    assert unknown_name("sweep", "x", []).hint == "known: none"


def test_the_kind_of_an_unknown_name_is_an_identifier() -> None:
    assert unknown_name("setting group", "x", []).kind == "unknown_setting_group"
