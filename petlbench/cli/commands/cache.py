"""``petlbench cache``: what the cache of preloaded features holds, whether it is whole, and making it smaller."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from petlbench.cli.options import CACHE_SIZE_VARIABLE, SIZE_OR_NOTHING, cache_dir_option, json_option
from petlbench.cli.output import print_facts, print_json, print_table, say
from petlbench.core.errors import InputError
from petlbench.core.units import MISSING, readable_size

if TYPE_CHECKING:
    from petlbench.features.maintenance import FeatureSet, Leftover, Pruned

_COLUMNS = ["key", "backbone", "features", "view>", "precision", "images>", "size>", "last used", "in use"]
_NOTHING = "no features are kept here"
# As many characters of a key as tell sets apart.
_SHORT = 8


@click.group("cache", epilog="Example: petlbench cache info")
def command() -> None:
    """Look after preloaded features, which runs share."""


@command.command("info", epilog="Example: petlbench cache info --json")
@cache_dir_option
@json_option
def info(cache_dir: Path, json: bool) -> None:
    """Show what is in the cache: one row for each kind of features."""
    import petlbench as pb

    sets, leftovers = pb.cache_info(cache_dir)
    rows = [_described(each) for each in reversed(sets)]
    if json:
        print_json(
            {
                "folder": str(cache_dir),
                "bytes": _bytes(sets),
                "sets": rows,
                "leftovers": {"files": len(leftovers), "bytes": _bytes(leftovers)},
            }
        )
        return
    if not sets:
        say(f"{cache_dir}: {_NOTHING}")
    else:
        print_table(
            f"features in {cache_dir}",
            _COLUMNS,
            map(_row, rows),
            caption=f"{len(sets)} feature set{'s' if len(sets) > 1 else ''}, {_size(sets)} in all",
        )
    if leftovers:
        say(f"killed processes left {_files(leftovers)}: petlbench cache prune removes them")


@command.command("verify", epilog="Example: petlbench cache verify --keep")
@click.option("--keep", is_flag=True, help="Leave damaged files where they are, and exit with status 1.")
@cache_dir_option
@json_option
def verify(keep: bool, cache_dir: Path, json: bool) -> int:
    """Check every byte of the cache; what is damaged is taken away, and the next run makes it again."""
    import petlbench as pb

    checked = pb.verify_cache(cache_dir, keep=keep, progress=True)
    if json:
        damaged = [{"file": str(each.file), "reason": each.reason, "removed": each.removed} for each in checked.damaged]
        unreadable = [{"file": str(file), "reason": reason} for file, reason in checked.unreadable]
        print_json({"folder": str(cache_dir), "good": checked.good, "damaged": damaged, "unreadable": unreadable})
    else:
        total = checked.good + len(checked.damaged) + len(checked.unreadable)
        say(f"{cache_dir}: " + (f"{checked.good} of {total} files are good" if total else _NOTHING))
        for damage in checked.damaged:
            fate = "taken away, the next run makes it again" if damage.removed else "left where it is"
            say(f"  {damage.file}: {damage.reason}; {fate}")
        for file, reason in checked.unreadable:
            say(f"  {file}: it cannot be read: {reason}")
    return 1 if checked.unreadable or any(not damage.removed for damage in checked.damaged) else 0


@command.command("prune", epilog="Example: petlbench cache prune --cache-size 50GB --dry-run")
@click.option(
    "--cache-size",
    type=SIZE_OR_NOTHING,
    envvar=CACHE_SIZE_VARIABLE,
    metavar="SIZE",
    help="What may stay, such as 50GB; features that were not used for longest go first.  "
    f"[default: ${CACHE_SIZE_VARIABLE}, or all features stay]",
)
@click.option("--all", "everything", is_flag=True, help="Delete all features: the same as --cache-size 0.")
@click.option("--dry-run", is_flag=True, help="Only say what would go.")
@cache_dir_option
@json_option
@click.pass_context
def prune(
    context: click.Context, cache_size: int | None, everything: bool, dry_run: bool, cache_dir: Path, json: bool
) -> None:
    """Make the cache smaller, and remove what killed processes have left in it.

    Features that a running process uses stay.
    """
    if everything:
        if cache_size and context.get_parameter_source("cache_size") is ParameterSource.COMMANDLINE:
            raise InputError("--all and --cache-size say different things", hint="give one of them", kind="usage")
        cache_size = 0
    import petlbench as pb

    done = pb.prune_cache(cache_dir, cache_size=cache_size, dry_run=dry_run)
    if json:
        print_json(_pruned(done, cache_dir, dry_run))
    else:
        _print_pruned(done, cache_dir, dry_run)


def _described(features: FeatureSet) -> dict[str, Any]:
    """A feature set as plain values; None where its description is damaged."""
    about = features.about()
    names = ("backbone", "weights", "features", "view", "image_size", "precision", "cache_precision", "device")
    return {
        "key": features.key,
        **{name: about.get(name) for name in names},
        "images": features.count_images(),
        "bytes": features.bytes,
        "last_used": datetime.fromtimestamp(features.last_used, UTC).isoformat(timespec="seconds"),
        "in_use": features.in_use,
    }


def _row(described: Mapping[str, Any]) -> list[str]:
    used = datetime.fromisoformat(described["last_used"]).astimezone()
    return [
        described["key"][:_SHORT],
        described["backbone"] or MISSING,
        _features(described["features"] or {}),
        str(described["image_size"] or MISSING),
        described["cache_precision"] or MISSING,
        str(described["images"]),
        readable_size(described["bytes"]),
        f"{used:%Y-%m-%d %H:%M}",
        "yes" if described["in_use"] else "no",
    ]


def _features(key: Mapping[str, Any]) -> str:
    """The key of features in a line, such as ``important_tokens, layers 0-11, ratio 0.2, score global``."""
    parts = [str(key["feature"])] if "feature" in key else []
    for name, value in key.items():
        if name != "feature":
            parts.append(f"{name} {_ranges(value) if name == 'layers' else value}")
    return ", ".join(parts) or MISSING


def _ranges(numbers: str) -> str:
    """Numbers with commas between them, with those that follow each other as a range: ``0,1,2,5`` as ``0-2,5``."""
    if not all(number.isdecimal() for number in str(numbers).split(",")):
        return str(numbers)
    ranges: list[list[int]] = []
    for number in map(int, str(numbers).split(",")):
        if ranges and number == ranges[-1][-1] + 1:
            ranges[-1][1:] = [number]
        else:
            ranges.append([number])
    return ",".join("-".join(map(str, ends)) for ends in ranges)


def _pruned(done: Pruned, cache_dir: Path, dry_run: bool) -> dict[str, Any]:
    return {
        "folder": str(cache_dir),
        "dry_run": dry_run,
        "removed": [{"key": each.key, "bytes": each.bytes} for each in done.sets],
        "leftovers": [{"file": str(each.path), "bytes": each.bytes} for each in done.leftovers],
        "stayed": [{"key": each.key, "bytes": each.bytes} for each in done.stayed],
        "bytes_freed": done.bytes_freed,
        "bytes_left": done.bytes_left,
    }


def _print_pruned(done: Pruned, cache_dir: Path, dry_run: bool) -> None:
    facts = {
        "would go" if dry_run else "gone": f"{_keys(done.sets)} ({_size(done.sets)})",
        "left by killed processes": _files(done.leftovers),
        "would free" if dry_run else "freed": readable_size(done.bytes_freed),
        "stays": readable_size(done.bytes_left),
    }
    if done.stayed:
        facts["stays all the same"] = f"{_keys(done.stayed)} ({_size(done.stayed)}): in use, or another user's"
    elif not done.sets and done.bytes_left:
        facts["to free more"] = "--cache-size SIZE says what may stay, --all deletes everything"
    print_facts(f"{cache_dir}{': nothing is deleted' if dry_run else ''}", facts)


def _keys(sets: Sequence[FeatureSet]) -> str:
    return ", ".join(each.key[:_SHORT] for each in sets) or "no feature set"


def _files(leftovers: Sequence[Leftover]) -> str:
    return f"{len(leftovers)} file{'' if len(leftovers) == 1 else 's'} ({_size(leftovers)})"


def _size(parts: Iterable[FeatureSet | Leftover]) -> str:
    return readable_size(_bytes(parts))


def _bytes(parts: Iterable[FeatureSet | Leftover]) -> int:
    return sum(part.bytes for part in parts)
