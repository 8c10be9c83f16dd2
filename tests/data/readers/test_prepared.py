"""The table of a prepared dataset: what is written is read back, and what was changed is noticed."""

from __future__ import annotations

import hashlib
import json
import string
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from petlbench.core.catalog import Catalog
from petlbench.core.errors import InputError
from petlbench.core.progress import Progress
from petlbench.data.card import DatasetCard, load_card
from petlbench.data.dataset import describe_dataset, open_dataset
from petlbench.data.images.files import ImageFacts
from petlbench.data.official.prepare import Preparation, PrepareOptions, prepare_dataset
from petlbench.data.official.verify import verify_dataset
from petlbench.data.readers.base import Source
from petlbench.data.readers.prepared import PreparedReader, PreparedSettings, read_prepared, read_table, table_bytes
from petlbench.data.record import SPLITS, Record
from petlbench.data.tasks.base import Labels
from tests.data.official_files import make

TEXT = st.text(string.ascii_letters + string.digits + " ,;\"'\\/\näß汉", min_size=1, max_size=12)
FACTS = st.builds(
    ImageFacts,
    st.text("0123456789abcdef", min_size=64, max_size=64),
    st.integers(0, 2**40),
    st.integers(1, 9999),
    st.integers(1, 9999),
    st.sampled_from(("PNG", "JPEG", "DICOM")),
)
RECORDS = st.lists(
    st.builds(
        Record,
        image_id=TEXT,
        path=TEXT,
        label=st.integers(0, 2),
        group=st.none() | TEXT,
        split=st.none() | st.sampled_from(SPLITS),
        extra=st.just(()) | st.tuples(st.tuples(st.just("age"), TEXT), st.tuples(st.just("sex"), TEXT)),
    ),
    unique_by=lambda record: record.image_id,
    max_size=6,
)


@given(RECORDS, st.data())
def test_the_table_reads_back(records: list[Record], data: st.DataObject) -> None:
    facts = {record.image_id: data.draw(FACTS) for record in records}
    back = list(read_table(table_bytes(records, facts, ("a", "b", "c"), Labels()), ("a", "b", "c").index))
    assert [record for record, _ in back] == sorted(records, key=lambda record: record.image_id)
    assert {record.image_id: found for record, found in back} == facts


def test_no_cell_of_the_table_is_a_formula_of_a_spreadsheet() -> None:
    record = Record("=1+1", "-a/=1+1", 0, "@b", None, (("+age", "=2"),))
    content = table_bytes([record], {"=1+1": ImageFacts("0" * 64, 1, 2, 3, "PNG")}, ("=c", "d"), Labels())
    cells = [cell for line in content.decode().splitlines() for cell in line.split(",")]
    assert not [cell for cell in cells if cell.startswith(("=", "+", "-", "@"))]
    assert [record for record, _ in read_table(content, ("=c", "d").index)] == [record]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Preparation:
    """ISIC 2016, prepared from its unpacked files."""
    folder = tmp_path_factory.mktemp("prepared")
    source = make("isic2016", folder / "official", images_per_class=4)
    return prepare_dataset(
        "isic2016",
        Catalog(),
        folder / "data",
        {},
        PrepareOptions(source),
        workers=1,
        progress=Progress(),
    )


@pytest.fixture
def folder(prepared: Preparation, tmp_path: Path) -> Path:
    """A copy of what was written down, to be spoiled."""
    copy = tmp_path / "isic2016"
    copy.mkdir()
    for file in prepared.folder.iterdir():
        if file.is_file():
            (copy / file.name).write_bytes(file.read_bytes())
    return copy


@pytest.fixture(scope="module")
def card() -> DatasetCard:
    return load_card(Catalog().find("dataset", "isic2016").file)


def opened(folder: Path, card: DatasetCard) -> PreparedReader:
    return PreparedReader(Source("isic2016", folder, PreparedSettings(), card))


def test_it_opens_as_it_was_prepared(folder: Path, card: DatasetCard, prepared: Preparation) -> None:
    reader = opened(folder, card)
    assert len(reader.records) == prepared.images == 20
    assert reader.classes == card.classes
    first = reader.records[0]
    assert reader.open(first).size == (32, 32)
    assert reader.content_hash(first) == reader.facts[first.image_id].sha256
    assert reader.facts[first.image_id].format == "JPEG"


def test_opening_looks_at_no_image(folder: Path, card: DatasetCard, prepared: Preparation, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    file = folder / "prepared.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"root": str(tmp_path / "empty")}))
    assert len(opened(folder, card).records) == 20


def test_an_image_that_was_changed_is_named(folder: Path, card: DatasetCard, tmp_path: Path) -> None:
    reader = opened(folder, card)
    other = replace(reader.records[0], path=reader.records[1].path)
    with pytest.raises(InputError, match="not the one that was prepared") as caught:
        reader.content_hash(other)
    assert other.path in caught.value.message


def test_not_prepared(tmp_path: Path, card: DatasetCard) -> None:
    assert read_prepared(tmp_path, "made") is None
    with pytest.raises(InputError) as caught:
        opened(tmp_path, card)
    assert caught.value.kind == "data_missing"
    assert "petlbench data prepare isic2016" in caught.value.hint


def test_another_version_of_the_card(folder: Path, card: DatasetCard) -> None:
    with pytest.raises(InputError, match=f"by version {card.version} of its card, which is now at version") as caught:
        opened(folder, card.model_copy(update={"version": card.version + 1}))
    assert caught.value.kind == "other_card"
    assert "--again" in caught.value.hint


def test_the_images_are_gone(folder: Path, card: DatasetCard) -> None:
    file = folder / "prepared.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"root": "/nowhere/at/all"}))
    with pytest.raises(InputError, match="/nowhere/at/all") as caught:
        opened(folder, card)
    assert caught.value.kind == "data_missing"


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"schema": 99}', '{"schema": 1, "splits": {"x": {"y": 1}}}'])
def test_a_spoiled_prepared_json(folder: Path, card: DatasetCard, content: str) -> None:
    (folder / "prepared.json").write_text(content)
    with pytest.raises(InputError, match="prepared.json") as caught:
        opened(folder, card)
    assert caught.value.kind == "bad_prepared"
    assert "--again" in caught.value.hint


def test_a_table_that_was_changed_or_is_gone(folder: Path, card: DatasetCard) -> None:
    table = folder / "images.csv"
    table.write_bytes(table.read_bytes().replace(b"benign", b"malignant", 1))
    for _ in range(2):
        with pytest.raises(InputError, match="images.csv") as caught:
            opened(folder, card)
        assert caught.value.kind == "bad_prepared"
        table.unlink(missing_ok=True)


def _rewrite(folder: Path, old: str, new: str) -> None:
    """Change the table and what is written down of it, as somebody who hands a prepared dataset on could."""
    table, file = folder / "images.csv", folder / "prepared.json"
    content = table.read_text()
    assert old in content
    table.write_text(content.replace(old, new, 1))
    digest = hashlib.sha256(table.read_bytes()).hexdigest()
    file.write_text(json.dumps(json.loads(file.read_text()) | {"table_sha256": digest}))


@pytest.mark.parametrize("path", ["../../secret.png", "/etc/passwd", "a/../../secret.png"])
def test_a_table_whose_path_leaves_the_folder(folder: Path, card: DatasetCard, path: str) -> None:
    _rewrite(folder, f",{opened(folder, card).records[0].path},", f",{path},")
    with pytest.raises(InputError, match=r"images\.csv") as caught:
        opened(folder, card)
    assert caught.value.kind == "path_outside"


@pytest.mark.parametrize(("old", "new"), [(",benign,", ",unheard of,"), ("JPEG", "JPEG,more"), ("image_id", '"')])
def test_a_table_of_another_form(folder: Path, card: DatasetCard, old: str, new: str) -> None:
    _rewrite(folder, old, new)
    with pytest.raises(InputError, match="no table of images") as caught:
        opened(folder, card)
    assert caught.value.kind == "bad_prepared"


def test_a_root_that_leaves_the_folder(folder: Path, card: DatasetCard) -> None:
    file = folder / "prepared.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"root": "../.."}))
    with pytest.raises(InputError) as caught:
        opened(folder, card)
    assert caught.value.kind == "path_outside"


def test_a_manifest_that_lies_elsewhere_is_not_read(folder: Path, prepared: Preparation) -> None:
    file = folder / "prepared.json"
    document = json.loads(file.read_text())
    for split in document["splits"].values():
        split["file"] = "../../../etc/passwd"
    file.write_text(json.dumps(document))
    with pytest.raises(InputError) as caught:
        verify_dataset("isic2016", Catalog(), folder.parent, 1, Progress())
    assert caught.value.kind == "path_outside"


@pytest.fixture(scope="module")
def chexpert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data root of made-up CheXpert files that were prepared."""
    top = tmp_path_factory.mktemp("chexpert")
    taken = PrepareOptions(make("chexpert", top / "files", images_per_class=4))
    prepare_dataset("chexpert", Catalog(), top / "data", {}, taken, workers=2, progress=Progress())
    return top / "data"


def labels_of(data_root: Path, **settings: str) -> tuple[tuple[str, ...], list[tuple[int | None, ...]]]:
    dataset = open_dataset("chexpert", catalog=Catalog(), data_root=data_root, settings=settings)
    assert dataset.card.classes == dataset.classes
    return dataset.classes, [record.label for record in dataset.records]


def test_uncertain_labels_are_what_the_setting_says(chexpert: Path) -> None:
    classes, ignored = labels_of(chexpert)
    assert len(classes) == 14
    assert any(None in label for label in ignored)
    for setting, value in (("zero", 0), ("one", 1)):
        expected = [tuple(value if own is None else own for own in label) for label in ignored]
        assert labels_of(chexpert, uncertain=setting) == (classes, expected)


@pytest.mark.parametrize("labels", ["competition", "atelectasis,cardiomegaly,consolidation,edema, pleural effusion"])
def test_some_labels_are_learned_by_name_or_as_a_set_of_the_card(chexpert: Path, labels: str) -> None:
    classes, every = labels_of(chexpert)
    chosen, some = labels_of(chexpert, labels=labels)
    assert chosen == ("atelectasis", "cardiomegaly", "consolidation", "edema", "pleural effusion")
    assert some == [tuple(label[classes.index(name)] for name in chosen) for label in every]


def test_a_label_that_is_none_of_the_cards_is_refused(chexpert: Path, tmp_path: Path) -> None:
    for data_root in (chexpert, tmp_path):  # with the images, and before they are there
        with pytest.raises(InputError, match="has no label 'oedema'") as caught:
            describe_dataset("chexpert", catalog=Catalog(), data_root=data_root, settings={"labels": "edema,oedema"})
        assert "sets: competition" in caught.value.hint


def test_fewer_labels_are_known_before_the_images_are_there(tmp_path: Path) -> None:
    settings = {"labels": "competition"}
    info = describe_dataset("chexpert", catalog=Catalog(), data_root=tmp_path, settings=settings)
    assert len(info.card.classes) == 5


def test_one_class_an_image_has_no_labels_to_choose_from(folder: Path, card: DatasetCard) -> None:
    settings = PreparedSettings(uncertain="one")
    with pytest.raises(InputError, match="has one class an image") as caught:
        PreparedReader(Source("isic2016", folder, settings, card))
    assert caught.value.kind == "bad_setting"
