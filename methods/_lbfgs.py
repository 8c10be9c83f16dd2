"""Linear heads as the minimum of a penalised loss, which L-BFGS finds."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from petlbench import RunError, TaskLoss

# Of the gradient's norm: at 1e-8, W is no farther than that from the minimum's, which rounding may put out of reach.
_AIM, _TOLERANCE = 1e-8, 1e-6
_MOST_STEPS = 20_000
# Steps whose differences stand for the curvature.
_MEMORY = 30
# What a Newton step leaves of the gradient, how many products it takes at most, and how many steps there are.
_LEFT, _MOST_PRODUCTS, _MOST_NEWTON_STEPS = 1e-3, 300, 8
# So that rounding makes no matrix indefinite: added to a diagonal, as a share of it; and of an image's loss.
_RIDGE = 1e-12
_LEAST_CURVATURE = 1e-12


def solve_head(head: nn.Linear, features: Tensor, loss: TaskLoss, c: float) -> None:
    """Set a linear head to where ``C * sum of the images' losses + |W|^2 / 2`` is least; its bias is not penalised.

    All is in float64, from zero on, so that the result depends on nothing but the features and their labels. L-BFGS
    (Liu and Nocedal, 1989) goes as far as two values of the loss can be told apart; Newton's steps, which need the
    gradient alone, go the rest.

    Args:
        head: The head, D to C.
        features: The images' features, (N, D).
        loss: The task's mean loss of their logits (N, C).
        c: The strength C of the losses, as scikit-learn has it.

    Raises:
        RunError: When the norm of the gradient, divided by C where that is above 1, does not fall to 1e-6 (kind
            ``not_converged``).
    """
    problem = _Problem(features, loss, c)
    weights, norm = problem.lbfgs(torch.zeros(problem.width, head.out_features).to(problem.rows))
    for _ in range(_MOST_NEWTON_STEPS):
        if norm <= _AIM:
            break
        closer, smaller = problem.newton_step(weights)
        if not smaller < norm:
            break
        weights, norm = closer, smaller
    if not norm <= _TOLERANCE * max(1.0, c):
        raise RunError(
            f"the search for the head did not converge: with C = {c:g} the gradient's norm is {norm:.1e}, above "
            f"{_TOLERANCE * max(1.0, c):g}",
            hint="set a smaller method.C, or a loss that has a curvature (l2 or huber, not l1)",
            kind="not_converged",
        )
    with torch.no_grad():
        head.weight.copy_(weights[:-1].T)
        head.bias.copy_(weights[-1])


class _Problem:
    """The function that is made least.

    It is searched in coordinates in which its curvature is about one in every direction: the minimum is the same there,
    and found in tens of steps instead of thousands.

    Attributes:
        rows: The features with a one behind each, (N, D + 1).
        width: Rows of the weights, D + 1: the last one is the bias.
    """

    def __init__(self, features: Tensor, loss: TaskLoss, c: float) -> None:
        self.rows = torch.cat([features.double(), torch.ones_like(features[:, :1], dtype=torch.float64)], dim=1)
        self.width = self.rows.shape[1]
        self._loss, self._c = loss, c
        self._penalised = torch.ones_like(self.rows[0])
        self._penalised[-1] = 0
        self._turn(torch.full_like(self.rows[:, 0], 0.25))  # a logistic loss's at zero

    def lbfgs(self, weights: Tensor) -> tuple[Tensor, float]:
        """Better weights (D + 1, C), and the gradient's norm there."""
        # To import it takes a fifth of a second, which steps need not.
        from scipy.optimize import OptimizeResult, minimize  # type: ignore[import-untyped, unused-ignore]  # noqa: PLC0415

        norm = math.inf

        def value(point: NDArray[Any]) -> tuple[float, NDArray[Any]]:
            nonlocal norm
            free = self._free(point)
            total = self._total(free)
            (gradient,) = torch.autograd.grad(total, free)
            norm = self._norm(gradient)
            return float(total.detach()), gradient.cpu().numpy().ravel()

        def stop(intermediate_result: OptimizeResult) -> None:
            if norm <= _AIM:
                raise StopIteration

        start = (self._factor.T @ weights).cpu().numpy().ravel()
        limits: Any = {"maxiter": _MOST_STEPS, "maxfun": 2 * _MOST_STEPS, "maxcor": _MEMORY, "ftol": 0, "gtol": 0}
        point = minimize(value, start, jac=True, method="L-BFGS-B", callback=stop, options=limits).x
        value(point)
        return self._weights(self._free(point)).detach(), norm

    def newton_step(self, weights: Tensor) -> tuple[Tensor, float]:
        """Better weights (D + 1, C), and the gradient's norm there; conjugate gradients solve the step's system."""
        from scipy.sparse.linalg import LinearOperator, cg  # type: ignore[import-untyped, unused-ignore]  # noqa: PLC0415

        self._turn(self._curvature(weights))
        free = (self._factor.T @ weights).requires_grad_()
        (gradient,) = torch.autograd.grad(self._total(free), free, create_graph=True)

        def product(direction: NDArray[Any]) -> NDArray[Any]:
            along = torch.from_numpy(direction).to(gradient).view_as(gradient)
            (turned,) = torch.autograd.grad(gradient, free, along, retain_graph=True)
            array: NDArray[Any] = turned.cpu().numpy().ravel()
            return array

        operator = LinearOperator((free.numel(), free.numel()), matvec=product, dtype=np.float64)
        with np.errstate(all="ignore"):  # without a curvature there is no step, which is seen
            step, _ = cg(operator, gradient.detach().cpu().numpy().ravel(), rtol=_LEFT, maxiter=_MOST_PRODUCTS)
        free = (free.detach() - self._free(step).detach()).requires_grad_()
        (gradient,) = torch.autograd.grad(self._total(free), free)
        return self._weights(free).detach(), self._norm(gradient)

    def _turn(self, curvature: Tensor) -> None:
        """Choose the coordinates by the mean curvature of each image's loss along its logits, (N,)."""
        matrix = (self._c * curvature * self.rows.T) @ self.rows + self._penalised.diag()
        self._factor = torch.linalg.cholesky(matrix + _RIDGE * matrix.diagonal().diag())
        self._turned = torch.linalg.solve_triangular(self._factor, self.rows.T, upper=False).T

    def _curvature(self, weights: Tensor) -> Tensor:
        logits = (self.rows @ weights).requires_grad_()
        (slopes,) = torch.autograd.grad(len(self.rows) * self._loss(logits), logits, create_graph=True)
        columns = range(logits.shape[1])
        second = [torch.autograd.grad(slopes[:, k].sum(), logits, retain_graph=True)[0][:, k] for k in columns]
        return torch.stack(second).mean(dim=0).clamp(min=_LEAST_CURVATURE)

    def _free(self, point: NDArray[Any]) -> Tensor:
        """The weights in the turned coordinates, (D + 1, C), which can be differentiated by."""
        return torch.from_numpy(point).to(self.rows).view(self.width, -1).requires_grad_()

    def _weights(self, free: Tensor) -> Tensor:
        """The weights in their own coordinates, (D + 1, C)."""
        weights: Tensor = torch.linalg.solve_triangular(self._factor.T, free, upper=True)
        return weights

    def _total(self, free: Tensor) -> Tensor:
        penalty = self._weights(free)[:-1].square().sum() / 2
        return self._c * len(self.rows) * self._loss(self._turned @ free) + penalty

    def _norm(self, gradient: Tensor) -> float:
        """The norm of a gradient (D + 1, C) in the weights' own coordinates."""
        return float((self._factor @ gradient).norm())
