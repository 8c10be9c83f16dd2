"""Reports in sentences: a paragraph with the numbers of the study, and checklists that answer no more than is known."""

from __future__ import annotations

from pathlib import Path

import pytest

import petlbench as pb
from petlbench.core.errors import InputError
from tests.report.stored import store, store_predicted


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two methods on a dataset, three seeds each."""
    output = tmp_path_factory.mktemp("results")
    for method, strength in (("full", 2.0), ("lora", 0.4)):
        for seed in (0, 1, 2):
            store_predicted(output, method, "isic2018", seed, strength, title="ISIC_2018")
    return output


def test_the_paragraph_has_the_numbers_of_the_tables(results: Path) -> None:
    document = pb.report("methods_paragraph", results)
    methods, outcome = document.paragraphs
    table = pb.report("table1", results).tables[0]
    for row in table.rows:
        assert f"{row.title} {row.cells['average'].text} %" in outcome
    for words in ("2 methods", "arXiv:2106.09685", "80 train, 40 test", "2 epochs", "3 seeds and 1 split", "read once"):
        assert words in methods
    assert "separable: LoRA -" in outcome


def test_it_is_latex_that_stands_in_a_paper(results: Path) -> None:
    text = pb.report("methods_paragraph", results).to_latex()
    assert r"ISIC\_2018" in text
    assert r"\begin{table}" not in text
    assert not any(line.endswith("-") for line in text.splitlines())
    assert all(r"\%" in line or "%" not in line or line.startswith("%") for line in text.splitlines())


def test_checklists_answer_what_is_known_and_leave_the_rest(results: Path) -> None:
    claim, tripod = pb.report("claim", results).tables
    assert (len(claim.rows), len(tripod.rows)) == (44, 35)
    rows = {row.key: row.cells for row in claim.rows}
    assert rows["44"]["status"].text == "for the author"
    assert rows["33"]["status"].text == "for the author"  # no external test set was read
    assert "best validation score" in rows["26"]["answer"].text
    assert all(bool(cells["answer"].text) == (cells["status"].text == "in part") for cells in rows.values())


def test_settings_are_not_mixed(results: Path, tmp_path: Path) -> None:
    for size in (224, 384):
        store(tmp_path, "lora", image_size=size)
    with pytest.raises(InputError) as error:
        pb.report("methods_paragraph", tmp_path)
    assert error.value.kind == "mixed_settings"
