"""The contract of what a method's class says of itself, before it is built."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import pytest

from petlbench.core.entry import MethodCard
from petlbench.core.errors import InputError
from petlbench.models.method import Method, TrainingDefaults
from petlbench.testing.messages import explained, fail

__all__ = ["SettingsContract"]


class SettingsContract:
    """Tests of a method's card, its defaults and its settings.

    Attributes:
        method: The method's class.
        settings: Settings that differ from the method's defaults.
    """

    method: ClassVar[type[Method[Any]]]
    settings: ClassVar[Mapping[str, Any]] = {}

    @classmethod
    def methods(cls) -> Sequence[type[Method[Any]]]:
        """The methods that are tried: one, unless a subclass tries more."""
        return [cls.method]

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """Repeat a rule for each method."""
        if "candidate" in metafunc.fixturenames:
            names = [getattr(getattr(each, "card", None), "name", each.__name__) for each in self.methods()]
            metafunc.parametrize("candidate", self.methods(), ids=names)

    def test_the_card_and_the_defaults_are_there(self, candidate: type[Method[Any]]) -> None:
        """A method has a card and the training that its paper used, within what a search tries."""
        name = candidate.__name__
        if not isinstance(getattr(candidate, "card", None), MethodCard):
            fail(f"{name} has no card: write card = MethodCard(name=..., title=..., family=..., year=..., paper=...)")
        defaults = getattr(candidate, "defaults", None)
        if not isinstance(defaults, TrainingDefaults):
            fail(f"{name} has no defaults: write defaults = TrainingDefaults(lr=...), the paper's learning rate")
        low, high = defaults.lr_range
        if not low <= defaults.lr <= high:
            fail(f"{name}: lr {defaults.lr:g} is outside lr_range ({low:g} to {high:g}): widen lr_range")

    def test_every_setting_has_a_description_bounds_and_a_default(self, candidate: type[Method[Any]]) -> None:
        """A setting says what it is, from where to where it goes and what the paper used."""
        for name, setting in candidate.Settings.model_fields.items():
            missing = [] if setting.description else ["description"]
            missing += ["default"] if setting.is_required() else []
            missing += ["bounds (ge=, le=)"] if setting.annotation in (int, float) and not _bounds(setting) else []
            if missing:
                fail(f"the setting '{name}' of {candidate.__name__} has no {', no '.join(missing)}: add to its Field")

    def test_settings_out_of_bounds_are_refused(self, candidate: type[Method[Any]]) -> None:
        """What no run can use is refused before a run, with a message."""
        wrong = {name: _bounds(setting) for name, setting in candidate.Settings.model_fields.items()}
        for name, values in {"no_such_setting": [1], **wrong}.items():
            for value in values:
                try:
                    candidate.from_settings({name: value})
                except InputError:
                    continue
                fail(f"{candidate.__name__} takes {name} = {value!r}, which it must refuse: see its Settings")

    def test_the_values_of_a_search_are_valid(self, candidate: type[Method[Any]]) -> None:
        """What a search tries of a setting is plain and within its bounds, and the default is among it."""
        for name, setting in candidate.Settings.model_fields.items():
            extra = setting.json_schema_extra
            if not isinstance(extra, dict) or (values := extra.get("search")) is None:
                continue
            where = f"the setting '{name}' of {candidate.__name__}"
            if not isinstance(values, list) or setting.default not in values:
                fail(f"{where} searches {values!r}: write a list with the default {setting.default!r} in it")
            for value in values:
                if not isinstance(value, bool | int | float | str):
                    fail(f"{where} searches {value!r}: write plain values")
                with explained(f"{where} searches {value!r}, which it refuses: change the list or the bounds"):
                    candidate.from_settings({name: value})


def _bounds(setting: Any) -> list[Any]:
    """Values just outside the bounds of a setting."""
    beyond = {"ge": -1, "gt": 0, "le": 1, "lt": 0}
    return [
        getattr(limit, key) + step for limit in setting.metadata for key, step in beyond.items() if hasattr(limit, key)
    ]
