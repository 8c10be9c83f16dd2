"""What a result rests on beside its config: data, weights, method code and package versions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import petlbench
from petlbench.core.catalog import Catalog
from petlbench.core.config import RunConfig
from petlbench.core.environment import package_versions
from petlbench.data.manifest import manifest_digest, split_digest
from petlbench.models.build import Assembled
from petlbench.run.data import RunData

__all__ = ["code_digests", "differences", "identify"]


def identify(
    config: RunConfig, catalog: Catalog, data: RunData, assembled: Assembled, external: RunData | None = None
) -> dict[str, Any]:
    """Take the digests that decide whether a stored result still stands for its config.

    Args:
        config: The run.
        catalog: The catalogues.
        data: Its data.
        assembled: Its module.
        external: Its external test set, where it has one.
    """
    return {
        "data": manifest_digest(data.manifest),
        "split": split_digest(data.manifest),
        "weights": assembled.weights_digest,
        **code_digests(config.method, catalog),
        "external": "" if external is None else manifest_digest(external.manifest),
    }


def code_digests(method: str, catalog: Catalog) -> dict[str, Any]:
    """Take the part of the digests that needs no data and no weights: method code and package versions.

    Args:
        method: Name of the method.
        catalog: The catalogues.
    """
    return {
        "method": catalog.find("method", method).digest(),
        "petlbench": petlbench.__version__,
        "packages": package_versions(),
    }


def differences(stored: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Say in words what differs between two sets of digests."""
    found = [
        f"{name} differs"
        for name in ("data", "split", "weights", "method", "external")
        if stored.get(name) != now[name]
    ]
    if stored.get("petlbench") != now["petlbench"]:
        found.append(f"petlbench was {stored.get('petlbench')} and is {now['petlbench']}")
    old, new = stored.get("packages", {}), now["packages"]
    found += [f"{name} was {old.get(name)} and is {new[name]}" for name in new if old.get(name) != new[name]]
    return found
