"""The head that L-BFGS finds: scikit-learn's, on the same features."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.multiclass import OneVsRestClassifier
from torch import Tensor, nn

from petlbench.core.catalog import Catalog
from petlbench.core.errors import InputError, RunError
from petlbench.methods._lbfgs import solve_head
from petlbench.models.method import TaskLoss, load_method
from petlbench.training.loss import Loss, Objective

CATALOG = Catalog()
WIDTH = 40


def images(count: int, classes: int) -> tuple[Tensor, Tensor]:
    """Features (N, D) far from zero, of unequal spread, and their labels, of which the first class has most."""
    generator = torch.Generator().manual_seed(count)
    labels = (torch.randint(classes + 2, (count,), generator=generator) - 2).clamp(min=0)
    noise = torch.randn(count, WIDTH, generator=generator) * torch.logspace(0, -2, WIDTH)
    return 3 + noise + 0.2 * torch.randn(classes, WIDTH, generator=generator)[labels], labels


def logits_of(features: Tensor, classes: int, loss: TaskLoss, c: float) -> Any:
    head = nn.Linear(WIDTH, classes).double()
    solve_head(head, features, loss, c)
    return head(features.double()).detach().numpy()


def objective(name: str, weights: Tensor | None = None) -> Objective:
    return Objective(CATALOG.load("loss", name, Loss), class_weights=weights)


@pytest.mark.parametrize("c", [1e-6, 1.0, 30.0])
@pytest.mark.parametrize("classes", [2, 4])
@pytest.mark.parametrize("weighs", [False, True])
def test_it_is_scikit_learns_logistic_regression(classes: int, c: float, weighs: bool) -> None:
    features, labels = images(150, classes)
    counts = torch.bincount(labels).double()
    weights = len(labels) / (classes * counts) if weighs else None
    ours = logits_of(features, classes, objective("cross_entropy", weights).exact(labels), c)
    # Of two classes scikit-learn has one row of weights, which is penalised as much as our two together at half of C.
    theirs = LogisticRegression(
        C=c * 2 if classes == 2 else c,
        class_weight="balanced" if weighs else None,
        solver="newton-cg",
        tol=1e-13,
        max_iter=10_000,
    ).fit(features.double().numpy(), labels.numpy())
    expected = theirs.decision_function(features.double().numpy())
    if classes == 2:
        np.testing.assert_allclose(ours[:, 1] - ours[:, 0], expected, rtol=0, atol=1e-6)
    else:
        centred = ours - ours.mean(axis=1, keepdims=True)
        np.testing.assert_allclose(centred, expected - expected.mean(axis=1, keepdims=True), rtol=0, atol=1e-6)


def test_several_labels_are_as_many_logistic_regressions() -> None:
    features, labels = images(150, 4)
    several = torch.stack([labels == 0, labels % 2 == 0], dim=1).double()
    ours = logits_of(features, 2, objective("binary_cross_entropy").exact(several), 2.0)
    # An image's loss is the mean over its labels.
    one = LogisticRegression(C=1.0, solver="newton-cg", tol=1e-13, max_iter=10_000)
    theirs = OneVsRestClassifier(one).fit(features.double().numpy(), several.numpy())
    np.testing.assert_allclose(ours, theirs.decision_function(features.double().numpy()), rtol=0, atol=1e-6)


def test_of_one_number_with_l2_it_is_ridge_regression() -> None:
    features, labels = images(150, 4)
    ours = logits_of(features, 1, objective("l2").exact(labels.double()), 10.0)
    theirs = Ridge(alpha=1 / 20).fit(features.double().numpy(), labels.numpy())
    np.testing.assert_allclose(ours[:, 0], theirs.predict(features.double().numpy()), rtol=0, atol=1e-6)


def test_a_loss_without_curvature_is_refused_by_name() -> None:
    features, labels = images(60, 4)
    with pytest.raises(RunError, match=r"with C = 1 the gradient's norm is") as caught:
        logits_of(features, 1, objective("l1").exact(labels.double()), 1.0)
    assert caught.value.kind == "not_converged"
    assert "l1" in caught.value.hint


@pytest.mark.parametrize(("name", "settings"), [("linear", {}), ("mlp_head", {"layers": 1})])
def test_a_linear_head_says_that_it_is_solved(name: str, settings: dict[str, Any]) -> None:
    method = load_method(CATALOG.find("method", name))
    assert method.from_settings({**settings, "solver": "lbfgs"}).is_solved
    assert not method.from_settings(settings).is_solved


def test_hidden_layers_are_not_solved() -> None:
    method = load_method(CATALOG.find("method", "mlp_head"))
    with pytest.raises(InputError, match="solver = lbfgs finds a linear head"):
        method.from_settings({"solver": "lbfgs"})
