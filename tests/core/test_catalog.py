"""The catalogues: found in four places, read without being imported, and never one entry over another."""

from __future__ import annotations

import ast
import os
import re
import sys
from importlib import invalidate_caches
from pathlib import Path

import pytest

from petlbench.core.catalog import Catalog
from petlbench.core.entry import KIND_SPECS
from petlbench.core.errors import InputError
from petlbench.models.method import load_method

METHOD = """
class Mine(Method):
    card = MethodCard(name="{name}", title="My method", family="own", year=2026, paper="https://example.org")
"""
CARD = 'title = "My data"\nmodality = "X-ray"\n'

IMPORTS = "from petlbench import Method, MethodCard, TrainingDefaults\n"


@pytest.fixture(autouse=True)
def _empty_working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cwd").mkdir()
    monkeypatch.chdir(tmp_path / "cwd")


def write(file: Path, text: str) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")
    return file


def method(file: Path, name: str | None = None) -> Path:
    return write(file, METHOD.format(name=name or file.stem))


def broken(folder: Path) -> InputError:
    with pytest.raises(InputError) as caught:
        Catalog([folder]).entries("method")
    return caught.value


class TestPlaces:
    def test_the_shipped_entries_are_there_and_say_so(self) -> None:
        methods = Catalog().entries("method")
        assert {"full", "linear", "lora", "fpt", "fpt_plus"} <= set(methods)
        assert all(entry.shipped for entry in methods.values())
        assert {"digits", "lesions", "isic2018"} <= set(Catalog().entries("dataset"))

    def test_cards_in_a_folder_have_its_name_in_front(self, tmp_path: Path) -> None:
        datasets = Catalog().entries("dataset")
        assert (datasets["vtab1k/cifar"].file.name, datasets["vtab1k/cifar"].shipped) == ("cifar.toml", True)
        for file in ("mine/eyes.toml", "mine/_shared.toml", ".git/eyes.toml", "mine/deeper/eyes.toml"):
            write(tmp_path / "datasets" / file, CARD)
        own = [entry.name for entry in Catalog([tmp_path]).entries("dataset").values() if not entry.shipped]
        assert own == ["mine/eyes"]
        write(tmp_path / "datasets" / "vtab1k" / "cifar.toml", CARD)
        with pytest.raises(InputError, match="'vtab1k/cifar' is taken twice"):
            Catalog([tmp_path]).entries("dataset")

    def test_one_file_may_define_a_family(self) -> None:
        methods = Catalog().entries("method")
        assert methods["fpt"].file == methods["fpt_plus"].file
        assert (methods["fpt"].attribute, methods["fpt_plus"].attribute) == ("FPT", "FPTPlus")

    @pytest.mark.parametrize("place", ["mine.py", "methods/mine.py"])
    def test_a_method_lies_in_the_given_folder_or_in_its_methods(self, tmp_path: Path, place: str) -> None:
        file = method(tmp_path / "own" / place)
        entry = Catalog([tmp_path / "own"]).find("method", "mine")
        assert (entry.file, entry.attribute, entry.title, entry.shipped) == (file, "Mine", "My method", False)
        assert entry.card["year"] == 2026

    @pytest.mark.parametrize("kind", ["dataset", "sweep", "report"])
    def test_a_card_lies_in_the_folder_of_its_kind(self, tmp_path: Path, kind: str) -> None:
        file = write(tmp_path / "own" / f"{kind}s" / "mine.toml", CARD)
        entry = Catalog([tmp_path / "own"]).find(kind, "mine")  # type: ignore[arg-type]
        assert (entry.name, entry.file, entry.title) == ("mine", file, "My data")
        assert entry.card["modality"] == "X-ray"

    def test_a_card_outside_the_folder_of_its_kind_is_not_taken(self, tmp_path: Path) -> None:
        write(tmp_path / "own" / "mine.toml", CARD)
        assert "mine" not in Catalog([tmp_path / "own"]).entries("dataset")

    def test_several_folders_are_read(self, tmp_path: Path) -> None:
        method(tmp_path / "a" / "one.py")
        method(tmp_path / "b" / "two.py")
        assert {"one", "two"} <= set(Catalog([tmp_path / "a", tmp_path / "b"]).entries("method"))

    def test_the_same_folder_given_twice_is_read_once(self, tmp_path: Path) -> None:
        method(tmp_path / "a" / "one.py")
        assert "one" in Catalog([tmp_path / "a", tmp_path / "a" / ".." / "a"]).entries("method")

    def test_the_folder_in_the_working_directory_is_found(self) -> None:
        file = method(Path("petlbench_catalog/methods/local.py").absolute())
        write(Path("petlbench_catalog/datasets/localdata.toml"), CARD)
        assert Catalog().find("method", "local").file == file
        assert Catalog().find("dataset", "localdata").title == "My data"

    def test_hidden_and_private_files_are_passed_over(self, tmp_path: Path) -> None:
        write(tmp_path / "own" / "_helper.py", "no card here")
        write(tmp_path / "own" / ".hidden.py", "class (")
        write(tmp_path / "own" / "notes.txt", "nothing")
        assert set(Catalog([tmp_path / "own"]).entries("method")) == set(Catalog().entries("method"))

    def test_a_file_is_parsed_once_and_a_change_of_it_is_seen_at_once(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        file, parsed = method(tmp_path / "mine.py", "first"), list[str]()
        parse = ast.parse
        monkeypatch.setattr(ast, "parse", lambda text, name: parsed.append(name) or parse(text, name))
        assert all("first" in Catalog([tmp_path]).entries("method") for _ in range(2))
        assert parsed.count(str(file)) == 1
        then = file.stat()
        method(file, "other")  # as long as it was, and as old
        os.utime(file, ns=(then.st_atime_ns, then.st_mtime_ns))
        assert "other" in Catalog([tmp_path]).entries("method")

    def test_an_absent_folder_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(InputError) as caught:
            Catalog([tmp_path / "absent"])
        assert caught.value.kind == "unknown_catalog"
        assert str(tmp_path / "absent") in caught.value.message

    def test_entries_are_in_alphabetical_order(self, tmp_path: Path) -> None:
        for name in ("zeta", "alpha"):
            method(tmp_path / "own" / f"{name}.py")
        for kind in KIND_SPECS:
            names = list(Catalog([tmp_path / "own"]).entries(kind))
            assert names == sorted(names)


class TestEntryPoint:
    @pytest.fixture
    def site(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        """A folder on the module path with a distribution that names the package ``others_catalog``."""
        site = tmp_path / "site"
        write(site / "others-1.0.dist-info" / "METADATA", "Metadata-Version: 2.1\nName: others\nVersion: 1.0\n")
        write(site / "others-1.0.dist-info" / "entry_points.txt", "[petlbench.catalog]\nothers = others_catalog\n")
        monkeypatch.syspath_prepend(str(site))
        invalidate_caches()
        return site

    def test_an_installed_package_brings_its_entries(self, site: Path) -> None:
        write(site / "others_catalog" / "__init__.py", "raise RuntimeError('listing imported the package')")
        file = method(site / "others_catalog" / "methods" / "theirs.py")
        write(site / "others_catalog" / "datasets" / "theirdata.toml", CARD)
        invalidate_caches()
        catalog = Catalog()
        assert catalog.find("method", "theirs").file == file
        assert catalog.find("dataset", "theirdata").title == "My data"
        assert "others_catalog" not in sys.modules

    def test_a_package_that_is_not_there_is_named(self, site: Path) -> None:
        with pytest.raises(InputError) as caught:
            Catalog().entries("method")
        assert caught.value.kind == "broken_catalog"
        assert "'others'" in caught.value.message
        assert "'others_catalog'" in caught.value.message

    def test_a_module_in_a_package_that_is_not_there_is_named(self, site: Path) -> None:
        entry_points = site / "others-1.0.dist-info" / "entry_points.txt"
        entry_points.write_text("[petlbench.catalog]\nothers = no_such_package.catalog\n")
        with pytest.raises(InputError) as caught:
            Catalog().entries("method")
        assert caught.value.kind == "broken_catalog"
        assert "'no_such_package.catalog'" in caught.value.message


class TestBroken:
    @pytest.mark.parametrize(
        ("file", "text"),
        [
            ("deep.py", "a = " + "-" * 200_000 + "1"),
            ("sweeps/deep.toml", "a = " + "[" * 100_000),
            ("many.py", "a = " + "(" * 5_000),
        ],
    )
    def test_a_file_that_is_nested_without_end_is_named(self, tmp_path: Path, file: str, text: str) -> None:
        write(tmp_path / "own" / file, text)
        with pytest.raises(InputError) as caught:
            Catalog([tmp_path / "own"]).entries("sweep" if file.startswith("sweeps") else "method")
        assert caught.value.kind == "broken_catalog"
        assert file in caught.value.message


class TestNames:
    def test_a_name_taken_twice_names_both_files(self, tmp_path: Path) -> None:
        first, second = method(tmp_path / "a" / "one.py", "same"), method(tmp_path / "b" / "two.py", "same")
        with pytest.raises(InputError) as caught:
            Catalog([tmp_path / "a", tmp_path / "b"]).entries("method")
        assert caught.value.kind == "duplicate_name"
        for word in ("'same'", str(first), str(second)):
            assert word in caught.value.message

    def test_no_entry_overrides_a_shipped_one(self, tmp_path: Path) -> None:
        file = method(tmp_path / "own" / "linear.py")
        error = broken(tmp_path / "own")
        assert error.kind == "duplicate_name"
        assert str(file) in error.message
        assert str(Catalog().find("method", "linear").file) in error.message

    def test_two_classes_of_one_file_with_one_name_are_refused(self, tmp_path: Path) -> None:
        write(tmp_path / "own" / "mine.py", METHOD.format(name="mine") + METHOD.format(name="mine"))
        assert broken(tmp_path / "own").kind == "duplicate_name"

    def test_a_dataset_and_a_method_may_share_a_name(self, tmp_path: Path) -> None:
        method(tmp_path / "own" / "same.py")
        write(tmp_path / "own" / "datasets" / "same.toml", CARD)
        catalog = Catalog([tmp_path / "own"])
        assert catalog.find("method", "same").file != catalog.find("dataset", "same").file

    @pytest.mark.parametrize(
        ("kind", "name", "near"),
        [("method", "ftp", "fpt"), ("dataset", "lesion", "lesions"), ("method", "LoRA", "lora")],
    )
    def test_an_unknown_name_is_answered_with_the_nearest(self, kind: str, name: str, near: str) -> None:
        with pytest.raises(InputError) as caught:
            Catalog().find(kind, name)  # type: ignore[arg-type]
        assert caught.value.kind == f"unknown_{kind}"
        assert f"'{name}'" in caught.value.message
        assert near in re.findall(r"\w+", caught.value.hint)


class TestBrokenFiles:
    @pytest.mark.parametrize(
        ("text", "why"),
        [
            ("class Mine(:\n", "syntax"),
            ("x = 1\n", "no class in it has a 'card = MethodCard(...)'"),
            (METHOD.format(name="mine").replace("2026", "YEAR"), "line 3: the card's 'year' is not a literal"),
            (METHOD.format(name="mine").replace('"own"', 'f"own"'), "'family' is not a literal"),
            (METHOD.format(name="mine").replace("year=2026", "**facts"), "written out, without **"),
            (METHOD.format(name="mine").replace(", year=2026", ""), "missing 1 required positional argument: 'year'"),
            (METHOD.format(name="mine").replace("year=2026", "year=2026, colour=1"), "colour"),
            (METHOD.format(name="my method"), "the card's name 'my method' is no identifier"),
            (METHOD.format(name="../mine"), "is no identifier"),
            (METHOD.format(name=""), "is no identifier"),
            (METHOD.format(name="mine").replace('"mine"', "3"), "name"),
            (METHOD.format(name="mine").replace('MethodCard(name="mine"', 'MethodCard("mine"'), "name"),
            ("\0", "null"),
        ],
    )
    def test_a_broken_method_file_is_named_with_what_is_wrong(self, tmp_path: Path, text: str, why: str) -> None:
        file = write(tmp_path / "own" / "mine.py", text)
        error = broken(tmp_path / "own")
        assert error.kind == "broken_catalog"
        assert str(file) in error.message
        assert why in error.message

    def test_a_file_that_is_no_text_is_named(self, tmp_path: Path) -> None:
        file = tmp_path / "own" / "mine.py"
        file.parent.mkdir()
        file.write_bytes(b"\xff\xfe\x00")
        assert str(file) in broken(tmp_path / "own").message

    @pytest.mark.parametrize(
        ("text", "why"),
        [("title = \nx = 1\n", "line 1"), ("modality = 'x'", "it has no 'title'"), ("title = 3", "no 'title'")],
    )
    @pytest.mark.parametrize("kind", ["dataset", "sweep", "report"])
    def test_a_broken_card_is_named_with_what_is_wrong(self, tmp_path: Path, kind: str, text: str, why: str) -> None:
        file = write(tmp_path / "own" / f"{kind}s" / "mine.toml", text)
        with pytest.raises(InputError) as caught:
            Catalog([tmp_path / "own"]).entries(kind)  # type: ignore[arg-type]
        assert caught.value.kind == "broken_catalog"
        assert str(file) in caught.value.message
        assert why in caught.value.message

    def test_a_pipe_that_is_called_like_a_method_keeps_nobody_waiting(self, tmp_path: Path) -> None:
        (tmp_path / "own").mkdir()
        os.mkfifo(tmp_path / "own" / "mine.py")
        error = broken(tmp_path / "own")
        assert error.kind == "broken_catalog"
        assert "is a pipe, not a file" in error.message

    def test_listing_runs_no_code_of_the_file(self, tmp_path: Path) -> None:
        write(tmp_path / "own" / "mine.py", f"open({str(tmp_path / 'ran')!r}, 'w')\n" + METHOD.format(name="mine"))
        assert "mine" in Catalog([tmp_path / "own"]).entries("method")
        assert not (tmp_path / "ran").exists()


class TestLoading:
    def test_a_method_of_the_users_is_imported_from_its_file(self, tmp_path: Path) -> None:
        method_file = write(tmp_path / "own" / "mine.py", IMPORTS + METHOD.format(name="mine"))
        found = load_method(Catalog([tmp_path / "own"]).find("method", "mine"))
        assert found.card.name == "mine"
        assert found.__module__ in sys.modules
        assert sys.modules[found.__module__].__file__ == str(method_file)

    def test_two_files_of_one_name_are_two_modules(self, tmp_path: Path) -> None:
        for folder, name in (("a", "one"), ("b", "two")):
            write(tmp_path / folder / "same_file.py", IMPORTS + METHOD.format(name=name))
        catalog = Catalog([tmp_path / "a", tmp_path / "b"])
        assert load_method(catalog.find("method", "one")).card.name == "one"
        assert load_method(catalog.find("method", "two")).card.name == "two"

    @pytest.mark.parametrize(
        ("text", "why"),
        [
            ("import no_such_package_at_all\n" + IMPORTS + METHOD.format(name="mine"), "no_such_package_at_all"),
            (IMPORTS + METHOD.format(name="mine") + "1 / 0\n", "ZeroDivisionError"),
            (METHOD.format(name="mine"), "NameError"),
            (IMPORTS + METHOD.format(name="mine").replace("(Method)", ""), "petlbench.Method"),
        ],
    )
    def test_a_file_that_does_not_import_is_named(self, tmp_path: Path, text: str, why: str) -> None:
        file = write(tmp_path / "own" / "mine.py", text)
        with pytest.raises(InputError) as caught:
            load_method(Catalog([tmp_path / "own"]).find("method", "mine"))
        assert caught.value.kind == "broken_catalog"
        assert str(file) in caught.value.message
        assert why in caught.value.message

    def test_every_shipped_method_loads_and_carries_its_card(self) -> None:
        for entry in Catalog().entries("method").values():
            found = load_method(entry)
            assert found.card.name == entry.name
            assert found.__name__ == entry.attribute
            assert found.defaults.lr > 0
