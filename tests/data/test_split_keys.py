"""What names a split and a manifest: each thing that can change a number changes its digest, and nothing else."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pandas as pd
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from petlbench.core.errors import InputError
from petlbench.data.manifest import COLUMNS, manifest_digest, split_digest
from petlbench.data.record import SPLITS, Record, Split
from petlbench.data.splits import SplitScheme, assign_splits

SCHEMES = ["official", "random", "kfold:3/0", "kfold:3/1", "kfold:5/1", "repeat:3/0", "repeat:3/2"]

# Among them what CSV quotes, what a spreadsheet takes for a formula, and what could be taken for nothing.
texts = st.text(st.sampled_from("ab,\"'=\n1 é"), max_size=4)
rows = st.fixed_dictionaries(
    {
        "image_id": texts,
        "path": texts,
        "label": st.integers(0, 3),
        "split": st.sampled_from(SPLITS),
        "group": texts,
        "sha256": texts,
    }
)
manifests = st.lists(rows, min_size=1, max_size=4, unique_by=lambda row: row["image_id"])


def frame(content: list[dict[str, Any]]) -> pd.DataFrame:
    return pd.DataFrame(content, columns=list(COLUMNS))


@settings(deadline=None, max_examples=200)
@given(manifests, st.integers(0, 3), st.sampled_from(COLUMNS), rows)
def test_every_cell_changes_the_manifests_digest_and_two_of_them_the_splits(
    content: list[dict[str, Any]], place: int, column: str, other: dict[str, Any]
) -> None:
    place %= len(content)
    changed = [{**row, column: other[column]} if row is content[place] else row for row in content]
    assume(changed[place][column] != content[place][column])
    assume(len({row["image_id"] for row in changed}) == len(changed))
    assert manifest_digest(frame(changed)) != manifest_digest(frame(content))
    is_of_the_split = column in ("image_id", "split")
    assert (split_digest(frame(changed)) != split_digest(frame(content))) is is_of_the_split


@settings(deadline=None, max_examples=50)
@given(manifests, st.randoms())
def test_an_order_of_rows_changes_no_digest_and_a_row_more_does(content: list[dict[str, Any]], random: Any) -> None:
    shuffled = list(content)
    random.shuffle(shuffled)
    for digest in (manifest_digest, split_digest):
        assert digest(frame(shuffled)) == digest(frame(content))
        if len(content) > 1:
            assert digest(frame(content[1:])) != digest(frame(content))


def digest_of(records: list[Record], scheme: str, seed: int) -> tuple[str, list[Split]] | None:
    try:
        sides = assign_splits(records, SplitScheme.parse(scheme), seed)
    except InputError:
        return None
    content = [
        {"image_id": r.image_id, "path": r.path, "label": r.label, "split": side, "group": r.group or "", "sha256": ""}
        for r, side in zip(records, sides, strict=True)
    ]
    return split_digest(frame(content)), sides


@st.composite
def tables(draw: st.DrawFn) -> list[Record]:
    count = draw(st.integers(20, 40))
    labels = draw(st.lists(st.integers(0, 1), min_size=count, max_size=count))
    groups = draw(st.sampled_from([False, True]))
    sides = draw(st.lists(st.sampled_from(SPLITS), min_size=count, max_size=count))
    return [
        Record(f"i{n:02d}", f"i{n:02d}", label, f"g{n // 2}" if groups else None, side)
        for n, (label, side) in enumerate(zip(labels, sides, strict=True))
    ]


CHANGES = {
    "image_id": lambda record: replace(record, image_id=f"x{record.image_id}"),
    "label": lambda record: replace(record, label=1 - record.label),
    "group": lambda record: replace(record, group="another"),
    "split": lambda record: replace(record, split="train"),
    "path": lambda record: replace(record, path="elsewhere"),
    "extra": lambda record: replace(record, extra=(("site", "north"),)),
}


@settings(deadline=None, max_examples=60)
@given(tables(), st.sampled_from(SCHEMES), st.integers(0, 5), st.sampled_from([*CHANGES, "scheme", "seed"]), st.data())
def test_another_split_has_another_digest_and_the_same_one_the_same(
    records: list[Record], scheme: str, seed: int, changed: str, data: st.DataObject
) -> None:
    """Whatever is changed: records, the way to split, its seed."""
    others = (list(records), scheme, seed)
    if changed == "scheme":
        others = (records, data.draw(st.sampled_from(SCHEMES)), seed)
    elif changed == "seed":
        others = (records, scheme, data.draw(st.integers(0, 5)))
    else:
        place = data.draw(st.integers(0, len(records) - 1))
        others[0][place] = CHANGES[changed](records[place])
    first, second = digest_of(records, scheme, seed), digest_of(*others)
    assume(first is not None and second is not None)
    assert first is not None
    assert second is not None
    tables_of_sides = [
        dict(zip((record.image_id for record in rows), sides, strict=True))
        for rows, (_, sides) in ((records, first), (others[0], second))
    ]
    assert (first[0] == second[0]) is (tables_of_sides[0] == tables_of_sides[1])
    if changed in ("path", "extra"):
        assert first[0] == second[0], "neither decides who is on which side"


def test_scheme_and_seed_make_splits_of_their_own() -> None:
    """Without this, a digest could be of no use: each scheme and seed that draws has a split that no other has."""
    records = [Record(f"i{n:03d}", f"i{n:03d}", n % 2) for n in range(100)]
    drawn = [scheme for scheme in SCHEMES if scheme != "official"]
    splits = [digest_of(records, scheme, seed) for scheme in drawn for seed in range(4)]
    digests = [split[0] for split in splits if split is not None]
    assert len(set(digests)) == len(digests) == 4 * len(drawn)
