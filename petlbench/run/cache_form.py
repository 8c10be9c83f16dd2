"""In which form a run's frozen features are kept: as it asks, or as the disk decides."""

from __future__ import annotations

from typing import get_args

from petlbench.core.config import RunConfig
from petlbench.core.errors import InputError
from petlbench.core.request import AUTO_FORM
from petlbench.features.frozen import CacheForm, has_forms, in_form
from petlbench.features.maintenance import CacheConfig, check_quota
from petlbench.features.quantization import stored_tensors
from petlbench.run.preload import plan_features
from petlbench.run.resolve import ResolvedRun

# What `check_quota` says where features find no room.
_NO_ROOM = ("no_room", "cache_too_small")


def settled(run: ResolvedRun, form: str, cache: CacheConfig) -> RunConfig:
    """The config of a run with the form that the disk decides on, where the request leaves it open.

    That is tokens where keys and values would find no room, on the disk or in the bound of the cache, and they would;
    what is in the cache is taken to be there already. Whether images are there is not looked at.

    Args:
        run: The run, with keys and values.
        form: What was asked for.
        cache: Where features are kept.
    """
    is_open = form == AUTO_FORM and run.config.preload and "linear_keys" in run.backbone.capabilities
    if not is_open or not has_forms(run.method.features(run.backbone)) or _has_room(run, "keys_values", cache):
        return run.config
    return _in_form(run, "tokens") if _has_room(run, "tokens", cache) else run.config


def bytes_by_form(run: ResolvedRun) -> dict[str, int] | None:
    """Bytes of one image's preloaded features in each form; None where they have but one."""
    frozen, precision = run.method.features(run.backbone), run.config.cache_precision
    if frozen is None or precision is None or not has_forms(frozen) or "linear_keys" not in run.backbone.capabilities:
        return None
    specs = {form: stored_tensors(in_form(frozen, form).spec(run.backbone), precision) for form in get_args(CacheForm)}
    return {form: sum(spec.bytes for spec in tensors.values()) for form, tensors in specs.items()}


def _has_room(run: ResolvedRun, form: CacheForm, cache: CacheConfig) -> bool:
    images = None if run.dataset is None else run.dataset.images
    frozen = run.method.features(run.backbone)
    store = plan_features(_in_form(run, form), frozen, run.backbone, run.views, cache.folder)
    if store is None or images is None:
        return True
    folder, cached = store.alike()
    try:
        check_quota(cache, folder, store.bytes_of(max(0, images - cached), spread_over=images))
    except InputError as error:
        return error.kind not in _NO_ROOM
    return True


def _in_form(run: ResolvedRun, form: CacheForm) -> RunConfig:
    return run.config.model_copy(update={"cache_form": form})
