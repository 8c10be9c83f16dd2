"""Text of other people's: what a terminal, a spreadsheet and a log must not take at its word."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from petlbench.core.text import (
    all_shown,
    comma_separated,
    csv_cell,
    items_of,
    plain_cell,
    printable,
    shown,
    without_password,
)

WORD = st.text("abcXYZ019._-", min_size=1, max_size=12)
SECRET = st.text("abcXYZ019._-@/:!$", min_size=1, max_size=12).map(lambda text: f"S3{text}S3")


@given(st.text())
def test_a_terminal_gets_no_character_that_steers_it(text: str) -> None:
    seen = printable(text)

    assert not any(ord(letter) < 32 or 127 <= ord(letter) < 160 for letter in seen)
    assert not set(seen) & set("\u2028\u2029\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u200e\u200f")
    seen.encode()


def test_letters_of_every_script_stay_and_escapes_are_seen() -> None:
    assert printable("Grün 健康 صحي क्ष") == "Grün 健康 صحي क्ष"
    assert printable("a\x1b[31mb\nc\u202ed") == r"a\x1b[31mb\nc\u202ed"


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@sum", "\t=1", "\r=1", "＝1"])
def test_what_a_spreadsheet_would_compute_begins_with_an_apostrophe(text: str) -> None:
    assert csv_cell(text) == f"'{text}"


def test_numbers_and_plain_text_are_left_as_they_are() -> None:
    assert [csv_cell(value) for value in (-1.5, None, "eye", "")] == [-1.5, None, "eye", ""]


@given(user=WORD, secret=SECRET, host=WORD)
@pytest.mark.parametrize("scheme", ["http", "https", "postgresql", "postgresql+psycopg2"])
def test_no_password_of_an_address_is_shown(scheme: str, user: str, secret: str, host: str) -> None:
    shown = without_password(f"cannot reach '{scheme}://{user}:{secret}@{host}/db' now")

    assert secret not in shown
    assert shown == f"cannot reach '{scheme}://{user}:***@{host}/db' now"


@given(secret=WORD, key=st.sampled_from(["password", "PWD", "api_key", "token", "X-Amz-Signature"]))
def test_no_secret_of_a_query_is_shown(secret: str, key: str) -> None:
    assert without_password(f"http://host/a?x=1&{key}={secret}&y=2") == f"http://host/a?x=1&{key}=***&y=2"


def test_tokens_in_front_of_a_host_are_secrets_too() -> None:
    assert without_password("https://TOKEN@host/x") == "https://***@host/x"
    assert without_password("user:secret@host") == "user:***@host"


@pytest.mark.parametrize(
    "text",
    [
        "http://host/a/b@c",
        "sqlite:////folder/a@b.db",
        "write to me@example.org",
        "/data/eye@2x.png",
        "hf-hub:timm/vit",
    ],
)
def test_addresses_without_a_password_are_left_as_they_are(text: str) -> None:
    assert without_password(text) == text


@given(st.lists(st.one_of(st.text(alphabet="ab:/@=?& \r\n\t\x1b眼"), WORD, SECRET)))
def test_texts_that_are_looked_at_together_are_shown_as_each_alone(texts: list[str]) -> None:
    assert all_shown(texts) == [shown(text) for text in texts]


@given(st.text(alphabet="'=+-@a1\t\n"))
def test_a_cell_gives_its_text_back_and_is_no_formula(text: str) -> None:
    cell = csv_cell(text)
    assert plain_cell(str(cell)) == text
    assert not str(cell).startswith(tuple("=+-@\t\r\n"))


def test_a_log_keeps_its_lines_and_columns_and_no_password() -> None:
    assert shown("a\tb\r\nc\x1b[2J\rd http://u:p@h/x") == "a\tb\r\nc\\x1b[2J\\rd http://u:***@h/x"


@given(st.lists(st.text().map(str.strip).filter(bool)))
def test_names_of_every_form_go_into_a_setting_and_out_again(names: list[str]) -> None:
    assert items_of(comma_separated(names)) == names


@pytest.mark.parametrize("text", ["", ",", " , ,", "a\nb", "\r,\n", '"', "x" * 200_000])
def test_a_setting_of_any_text_has_items(text: str) -> None:
    assert all(item == item.strip() for item in items_of(text))
