"""A part that is not there: the test is skipped, and fails where the part has to be there."""

from __future__ import annotations

import sys

import pytest

from tests import parts
from tests.parts import Part, need, required


@pytest.fixture(autouse=True)
def absent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(
        parts.PARTS, "absent", Part("apt-get install absent", ("no_such_module",), ("no-such-program",))
    )
    monkeypatch.delenv(parts.REQUIRE, raising=False)


def test_what_is_there_is_no_reason_to_skip(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(parts.PARTS, "present", Part("", ("json",), (sys.executable,)))
    need("present")


def test_what_is_missing_is_skipped_with_its_name_and_how_to_get_it() -> None:
    reason = r"absent is not here \(no_such_module, no-such-program\): apt-get install absent"
    with pytest.raises(pytest.skip.Exception, match=reason):
        need("absent")


def test_what_is_missing_and_has_to_be_there_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(parts.REQUIRE, "ray, absent")
    with pytest.raises(pytest.fail.Exception, match="PETLBENCH_REQUIRE asks for it"):
        need("absent")


def test_what_is_no_part_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    assert required() == set()
    monkeypatch.setenv(parts.REQUIRE, "ray,latecks")
    with pytest.raises(pytest.UsageError, match="names latecks; the parts are ray, postgres, chromium"):
        required()
