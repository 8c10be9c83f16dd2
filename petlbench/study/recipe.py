"""Recipes as files: what the authors of a method run, by dataset where they tune it so, with its source."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, field_validator

from petlbench.core.catalog import Catalog
from petlbench.core.config import TrainingConfig, validate_settings
from petlbench.core.errors import InputError, unknown_name
from petlbench.core.request import Tuned


class _Settings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    training: Mapping[str, Any] = Field(default_factory=dict, description="settings of the training")
    method: Mapping[str, Any] = Field(default_factory=dict, description="settings of the method")

    @field_validator("training")
    @classmethod
    def _is_known(cls, training: Mapping[str, Any]) -> Mapping[str, Any]:
        validate_settings(TrainingConfig, {"lr": 1, "weight_decay": 0, **training}, "training")
        return training


class RecipeCard(_Settings):
    """One recipe of one method, as its file has it: ``METHOD.RECIPE.toml``."""

    title: str = Field(min_length=1, description="what is run, in a few words")
    source: str = Field(min_length=1, description="where its figures stand")
    datasets: Mapping[str, _Settings] = Field(
        default_factory=dict, description="further settings by dataset; where there are any, it is for these alone"
    )

    def settings(self, dataset: str) -> tuple[dict[str, Any], dict[str, Any]] | None:
        """Settings of training and method on a dataset; None where it says nothing of that."""
        own = self.datasets.get(dataset, _Settings() if not self.datasets else None)
        return None if own is None else ({**self.training, **own.training}, {**self.method, **own.method})


def recipe_settings(catalog: Catalog, recipe: str, method: str, dataset: str) -> Tuned:
    """The settings that a method's recipe has for a dataset.

    Args:
        catalog: The catalogues, in which a recipe is called ``METHOD.RECIPE``.
        recipe: Its name, such as ``published``.
        method: Name of the method.
        dataset: Name of the dataset.

    Returns:
        The settings; or a refusal, where the method has no such recipe or that says nothing of the dataset.

    Raises:
        InputError: When no method has a recipe of that name, or the file is wrong.
    """
    entries = catalog.entries("recipe")
    names = {name.rpartition(".")[2] for name in entries}
    if recipe not in names:
        raise unknown_name("recipe", recipe, names)
    entry = entries.get(f"{method}.{recipe}")
    if entry is None:
        return Tuned(refusal=f"{method} has no recipe '{recipe}' (petlbench list recipes)")
    card = validate_settings(RecipeCard, entry.card, f"the recipe file {entry.file}")
    settings = card.settings(dataset)
    if settings is None:
        return Tuned(refusal=f"the recipe '{recipe}' of {method} says nothing of {dataset}")
    return Tuned(*settings, recipe=recipe)


def require_recipe(catalog: Catalog, recipe: str, method: str, dataset: str) -> Tuned:
    """The settings that a method's recipe has for a dataset, as `recipe_settings` gives them.

    Raises:
        InputError: When there are none, too.
    """
    tuned = recipe_settings(catalog, recipe, method, dataset)
    if tuned.refusal:
        raise InputError(f"--recipe {recipe}: {tuned.refusal}", hint="leave --recipe out", kind="unknown_recipe")
    return tuned
