"""What every test has in common."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator

import pytest

from tests.parts import need, required


def pytest_configure() -> None:
    """Refuse at once what ``PETLBENCH_REQUIRE`` names and is no part."""
    required()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Look whether the parts are there that a test needs: ``@pytest.mark.needs("ray")``."""
    for mark in item.iter_markers("needs"):
        for name in mark.args:
            need(name)


def pytest_collection_finish() -> None:
    """Leave what imports have made out of garbage collection: runs collect often, and it is there until the end."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def feature_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Preloaded features go to a folder of this session; what the user keeps is neither read nor written."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PETLBENCH_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.delenv("PETLBENCH_CACHE_SIZE", raising=False)
        yield


@pytest.fixture(scope="module", autouse=True)
def few_timed_passes(request: pytest.FixtureRequest) -> Iterator[None]:
    """Runs time their prediction as seldom as they may, but where the timing itself is tested."""
    cost = sys.modules.get("petlbench.run.inference_cost")
    with pytest.MonkeyPatch.context() as patch:
        if cost is not None and request.path.name != "test_inference_cost.py":
            patch.setattr(cost, "_MOST", cost._FEWEST)
        yield
