"""Everything a user can get wrong: refused before anything is written, in words that say what and how to go on.

The fixture ``refused`` asks what all refusals share; the tests ask for the thing, the value, the place and the step.
"""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import timm
import torch

Refused = Callable[..., dict[str, str]]
Quick = Callable[..., list[str]]
Cli = Callable[..., Any]


class TestForm:
    """Without ``--json`` an error is two lines on standard error, whatever part of the program found it."""

    @pytest.mark.parametrize(
        "wrong",
        [
            {"method": "adaptre"},
            {"set": "metod.rank=3"},
            {"epochs": "0"},
            {"precision": "fp8"},
            {"image_size": "33"},
            {"weights": "pictures/cat/0.png"},
        ],
    )
    def test_an_error_is_two_lines(self, cli: Cli, refused: Refused, quick: Quick, wrong: dict[str, str]) -> None:
        error = refused(*quick(**wrong))
        plain = cli(*quick(**wrong))
        assert plain.status == 2
        assert plain.out == ""
        assert plain.err == f"error: {error['message']}\n  hint: {error['hint']}\n"

    def test_a_traceback_is_shown_on_request(self, cli: Cli, quick: Quick) -> None:
        outcome = cli(*quick(method="adaptre"), "--debug")
        assert outcome.status == 2
        assert "Traceback" in outcome.err
        assert "error: unknown method 'adaptre'" in outcome.err

    def test_a_defect_of_ours_is_one_error_too(self, cli: Cli, quick: Quick, monkeypatch: pytest.MonkeyPatch) -> None:
        def broken(*_: object) -> None:
            raise ZeroDivisionError("by design")

        monkeypatch.setattr(import_module("petlbench.api.requests"), "resolve", broken)
        outcome = cli(*quick(json=True))
        assert outcome.status == 1
        assert outcome.document["error"]["kind"] == "internal"
        assert outcome.document["error"]["message"] == "ZeroDivisionError: by design"
        assert "--debug" in outcome.document["error"]["hint"]


class TestNames:
    def test_an_unknown_method_is_answered_with_the_nearest(self, refused: Refused, quick: Quick) -> None:
        error = refused(*quick(method="adaptre"))
        assert (error["kind"], error["message"]) == ("unknown_method", "unknown method 'adaptre'")
        assert error["hint"].startswith("did you mean adapter or ")

    def test_a_method_far_from_all_is_answered_with_every_name(self, refused: Refused, quick: Quick) -> None:
        hint = refused(*quick(method="zzzzz"))["hint"]
        for name in ("fpt", "fpt_plus", "full", "linear", "lora"):
            assert name in hint.removeprefix("known: ").split(", ")

    def test_an_unknown_dataset_is_answered_with_the_nearest(self, refused: Refused, quick: Quick) -> None:
        error = refused(*quick(dataset="leisons"))
        assert error["kind"] == "unknown_dataset"
        assert "'leisons'" in error["message"]
        assert "lesions" in error["hint"]

    def test_a_dataset_far_from_all_is_told_where_it_was_looked_for(
        self, refused: Refused, quick: Quick, here: Path
    ) -> None:
        hint = refused(*quick(dataset="nowhere/xyz"))["hint"]
        assert str(here / "nowhere/xyz") in hint
        assert "digits" in hint

    def test_a_file_of_another_kind_is_no_dataset(self, refused: Refused, quick: Quick, here: Path) -> None:
        (here / "notes.txt").write_text("hello")
        error = refused(*quick(dataset="notes.txt"))
        assert error["kind"] == "unknown_dataset"
        assert "notes.txt" in error["message"]
        assert ".csv" in error["hint"]

    def test_an_unknown_backbone_is_answered_with_the_nearest(self, refused: Refused, quick: Quick) -> None:
        error = refused(*quick(backbone="vit_tny_patch16_224"))
        assert error["kind"] == "unknown_backbone"
        assert "'vit_tny_patch16_224'" in error["message"]
        assert "vit_tiny_patch16_224" in error["hint"].split()

    def test_an_unknown_weight_tag_is_answered_with_those_that_exist(self, refused: Refused, quick: Quick) -> None:
        error = refused(*quick(backbone="vit_tiny_patch16_224.augrg_in21k"))
        assert error["kind"] == "unknown_backbone"
        assert "vit_tiny_patch16_224.augreg_in21k" in error["hint"]

    @pytest.mark.parametrize(
        "backbone",
        [
            "densenet121",
            "swinv2_tiny_window8_256",
            "mixer_b16_224",
            "xcit_nano_12_p16_224",
            "hiera_tiny_224",
            "crossvit_9_240",
            "volo_d1_224",
            "mvitv2_tiny",
        ],
    )
    def test_a_backbone_that_is_no_plain_transformer_is_refused(
        self, refused: Refused, quick: Quick, backbone: str
    ) -> None:
        error = refused(*quick(backbone=backbone))
        assert error["kind"] == "unsupported_backbone"
        assert backbone in error["message"]
        assert "vit_base_patch16_384" in error["hint"]

    def test_an_empty_backbone_is_not_the_default_one(self, refused: Refused, quick: Quick) -> None:
        assert refused(*quick(backbone="", dry_run=True))["kind"] == "unknown_backbone"

    def test_an_unknown_catalog_folder_is_named(self, refused: Refused, quick: Quick) -> None:
        error = refused(*quick(catalog="no/such/folder"))
        assert error["kind"] == "unknown_catalog"
        assert "--catalog no/such/folder" in error["message"]

    def test_an_unknown_run_is_named(self, refused: Refused, pictures: Path) -> None:
        error = refused("predict", "linear-x-s0-000000000000", pictures / "cat" / "0.png")
        assert error["kind"] == "unknown_run"
        assert "linear-x-s0-000000000000" in error["message"]

    def test_an_unknown_dataset_of_data_info_is_answered_with_the_nearest(self, refused: Refused) -> None:
        assert "lesions" in refused("data", "info", "leison")["hint"]


class TestSettings:
    @pytest.mark.parametrize(
        ("changed", "owner", "near"),
        [
            ({"method": "lora", "set": "method.rnk=3"}, "method lora has no setting 'rnk'", "did you mean rank?"),
            ({"method": "full", "set": "method.rank=3"}, "method full has no setting 'rank'", "no settings"),
            ({"set": "training.epoch=3"}, "training has no setting 'epoch'", "epochs"),
            (
                {"dataset": "lesions", "set": "dataset.image_cont=90"},
                "'lesions' has no setting 'image_c",
                "image_count",
            ),
            ({"set": "dataset.colour=3"}, "'pictures' has no setting 'colour'", "did you mean layout?"),
        ],
    )
    def test_an_unknown_key_names_its_owner_and_the_known_keys(
        self, refused: Refused, quick: Quick, changed: dict[str, str], owner: str, near: str
    ) -> None:
        error = refused(*quick(**changed))
        assert error["kind"] == "unknown_setting"
        assert owner in error["message"]
        assert near in error["hint"]

    @pytest.mark.parametrize(
        ("arguments", "name"),
        [
            (("run", "--lr", "1", "--lr", "2"), "--lr"),
            (("run", "--seed", "3", "--method", "full", "--seed", "3"), "--seed"),
            (("bench", "--preload", "--method", "full", "--no-preload"), "--preload"),
            (("data", "info", "digits", "--figure", "a.png", "--figure", "b.png"), "--figure"),
        ],
    )
    def test_an_option_of_one_value_is_not_given_twice(
        self, refused: Refused, arguments: Sequence[str], name: str
    ) -> None:
        assert refused(*arguments)["message"] == f"{name} is given twice"

    def test_a_setting_is_not_given_twice(self, refused: Refused, quick: Quick) -> None:
        error = refused(*quick(set="method.rank=3"), "--set", " method.rank = 4")
        assert error["message"] == "--set gives method.rank twice: 3 and 4"

    def test_an_unknown_group_is_answered_with_the_nearest(self, refused: Refused, quick: Quick) -> None:
        error = refused(*quick(set="metod.rank=3"))
        assert error["kind"] == "unknown_setting_group"
        assert "'metod'" in error["message"]
        assert error["hint"] == "did you mean method?"

    @pytest.mark.parametrize("text", ["rank=3", "method.rank", "method.=3", "=", "", "method"])
    def test_a_malformed_assignment_is_shown_with_the_form(self, refused: Refused, quick: Quick, text: str) -> None:
        error = refused(*quick(set=text))
        assert error["kind"] == "bad_setting"
        assert f"--set {text}" in error["message"]
        assert "GROUP.KEY=VALUE" in error["message"]
        assert "--set method.rank=8" in error["hint"]

    @pytest.mark.parametrize(
        ("changed", "shown", "bound"),
        [
            ({"lr": "-1"}, "lr = -1.0", "greater than 0"),
            ({"lr": "nan"}, "lr = nan", "Input should be"),
            ({"lr": "inf"}, "lr = inf", "Input should be"),
            ({"set": "training.lr=fast"}, "lr = 'fast'", "valid number"),
            ({"epochs": "0"}, "epochs = 0", "greater than or equal to 1"),
            ({"batch_size": "0"}, "batch_size = 0", "greater than or equal to 1"),
            ({"weight_decay": "-0.1"}, "weight_decay = -0.1", "greater than or equal to 0"),
            ({"set": "training.label_smoothing=1"}, "label_smoothing = '1'", "less than 1"),
            ({"set": "training.schedule=linear"}, "schedule = 'linear'", "'cosine', 'constant', 'step'"),
            ({"method": "fpt", "set": "method.token_ratio=2"}, "token_ratio = '2'", "less than or equal to 1"),
            ({"method": "fpt", "set": "method.token_ratio=0"}, "token_ratio = '0'", "greater than 0"),
            ({"method": "fpt", "set": "method.num_prompts=0"}, "num_prompts = '0'", "greater than or equal to 1"),
            ({"method": "lora", "set": "method.rank=1.5"}, "rank = '1.5'", "integer"),
            (
                {"dataset": "lesions", "set": "dataset.image_count=3"},
                "image_count = '3'",
                "greater than or equal to 60",
            ),
            ({"seed": "-1"}, "seed = -1", "greater than or equal to 0"),
            ({"seed": str(2**32)}, "seed = 4294967296", "less than 4294967296"),
            ({"split_seed": "-1"}, "split_seed = -1", "greater than or equal to 0"),
            ({"threads": "-2"}, "threads = -2", "greater than 0"),
            ({"threads": "0"}, "threads = 0", "greater than 0"),
        ],
    )
    def test_a_value_out_of_bounds_is_shown_with_its_bound(
        self, refused: Refused, quick: Quick, changed: dict[str, str], shown: str, bound: str
    ) -> None:
        error = refused(*quick(**changed))
        assert error["kind"] == "bad_setting"
        assert shown in error["message"]
        assert bound in error["message"]

    def test_widths_that_heads_cannot_share_are_refused_before_weights(self, refused: Refused, quick: Quick) -> None:
        error = refused(*quick(method="fpt", set="method.reduction=7", weights="default"))
        assert error["kind"] == "unsupported"
        for word in ("192", "7", "3 heads"):
            assert word in error["message"]

    @pytest.mark.parametrize("split", ["halves", "kfold:5", "kfold:5/5", "repeat:0/0", "kfold:1/0", "kfold:5/-1", ""])
    def test_a_malformed_split_is_shown_with_the_forms(self, refused: Refused, quick: Quick, split: str) -> None:
        error = refused(*quick(split=split))
        assert error["kind"] == "bad_split"
        assert f"'{split}'" in error["message"]
        assert "kfold:" in error["hint"] or "repeat:" in error["hint"]

    @pytest.mark.parametrize(("size", "neighbours"), [(33, (32, 48)), (47, (32, 48)), (225, (224, 240)), (8, (16,))])
    def test_an_image_size_off_the_patch_is_answered_with_its_neighbours(
        self, refused: Refused, quick: Quick, size: int, neighbours: tuple[int, ...]
    ) -> None:
        error = refused(*quick(image_size=str(size)))
        assert error["kind"] == "bad_image_size"
        assert str(size) in error["message"]
        assert "16 pixels" in error["message"]
        assert error["hint"] == "use --image-size " + " or ".join(map(str, neighbours))

    @pytest.mark.parametrize("size", [0, -16])
    def test_an_image_size_that_is_none_is_refused(self, refused: Refused, quick: Quick, size: int) -> None:
        error = refused(*quick(image_size=str(size), dry_run=True))
        assert error["kind"] == "bad_image_size"
        assert str(size) in error["message"]
        assert error["hint"] == "use --image-size 16"


class TestOptions:
    @pytest.mark.parametrize(
        ("arguments", "named"),
        [
            (["run", "--method", "linear", "--dataset", "digits", "--frobnicate"], "--frobnicate"),
            (["run", "--dataset", "digits"], "--method"),
            (["run", "--method", "linear"], "--dataset"),
            (["run", "--method", "linear", "--dataset", "digits", "--lr", "fast"], "--lr"),
            (["run", "--method", "linear", "--dataset", "digits", "--device", "tpu"], "tpu"),
            (["run", "--method", "linear", "--dataset", "digits", "--precision", "fp8"], "fp8"),
            (["run", "--method", "linear", "--dataset", "digits", "--workers", "0"], "--workers"),
            (["list", "weights"], "weights"),
            (["predict"], "RUN"),
            (["data", "inform", "digits"], "inform"),
            (["frobnicate"], "frobnicate"),
        ],
    )
    def test_a_wrong_command_line_points_to_the_help(self, refused: Refused, arguments: list[str], named: str) -> None:
        error = refused(*arguments)
        assert error["kind"] == "usage"
        assert named in error["message"]
        command = f"{arguments[0]} " if arguments[0] != "frobnicate" else ""
        assert error["hint"] == f"see petlbench {command}--help"

    @pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
    def test_cuda_without_cuda_names_what_there_is(self, refused: Refused, quick: Quick) -> None:
        error = refused(*quick(device="cuda"))
        assert error["kind"] == "bad_setting"
        assert "--device cuda" in error["message"]
        assert "cpu" in error["hint"]

    @pytest.mark.parametrize("method", ["full", "lora"])
    def test_preloading_what_changes_is_refused(self, refused: Refused, quick: Quick, method: str) -> None:
        error = refused(*quick(method=method, preload=True))
        assert error["kind"] == "bad_setting"
        assert f"--preload: {method}" in error["message"]

    @pytest.mark.parametrize("dataset", ["pictures", "digits"])
    def test_the_cards_colours_without_a_mean_are_refused(self, refused: Refused, quick: Quick, dataset: str) -> None:
        error = refused(*quick(normalize="card", dataset=dataset))
        assert error["kind"] == "bad_setting"
        assert "--normalize card" in error["message"]
        assert dataset in error["message"]
        assert "--normalize backbone" in error["hint"]

    def test_a_tracking_address_of_no_kind_is_refused(self, refused: Refused, quick: Quick) -> None:
        error = refused(*quick(tracking_uri="ftp://example.org"))
        assert error["kind"] == "bad_tracking_uri"
        assert "ftp://example.org" in error["message"]

    def test_output_below_a_file_is_refused(self, refused: Refused, quick: Quick, here: Path) -> None:
        (here / "taken").write_text("a file")
        error = refused(*quick(output="taken/results"))
        assert error["kind"] == "not_writable"
        assert "taken/results" in error["message"]
        assert "taken is a file" in error["message"]
        assert "--output" in error["hint"]

    def test_output_in_a_read_only_folder_is_refused(
        self, refused: Refused, quick: Quick, here: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (here / "sealed").mkdir()
        real = os.access

        def access(path: Any, mode: int, **options: Any) -> bool:
            return not (mode & os.W_OK and Path(path).name == "sealed") and real(path, mode, **options)

        monkeypatch.setattr(os, "access", access)
        error = refused(*quick(output="sealed/results"))
        assert error["kind"] == "not_writable"
        assert "sealed/results" in error["message"]
        assert "read-only" in error["message"]

    @pytest.mark.parametrize(("name", "value"), [("threads", "1000000000"), ("set", "training.warmup_epochs=1e300")])
    def test_numbers_that_no_run_could_use_are_refused(
        self, refused: Refused, quick: Quick, name: str, value: str
    ) -> None:
        error = refused(*quick(**{name: value}))
        assert error["kind"] == "bad_setting"
        assert value.rpartition("=")[2] in error["message"]

    @pytest.mark.parametrize("command", ["run", "bench"])
    def test_a_setting_that_is_given_twice_is_refused(self, refused: Refused, quick: Quick, command: str) -> None:
        error = refused(command, *quick(set="training.epochs=abc")[1:])
        assert error["kind"] == "bad_setting"
        assert error["message"].endswith("gives epochs twice: 1 and, as training.epochs, abc")

    @pytest.mark.parametrize("option", ["--timeout", "--cpus-per-run", "--gpus-per-run"])
    @pytest.mark.parametrize("value", ["nan", "inf"])
    def test_what_is_no_number_is_refused(self, refused: Refused, option: str, value: str) -> None:
        error = refused("bench", "--method", "linear", "--dataset", "digits", "--dry-run", option, value)
        assert error["kind"] == "bad_setting"
        assert error["message"].startswith(f"{option} {value}: ")


NO_PATHS = {
    "": "nothing is named",
    "~nosuchuser/results": "no such user",
    "loop": "symbolic link",
    "x" * 300: "too long",
    f"{'y' * 300}/results": "too long",
}


class TestPaths:
    """A path at which nothing can be is refused by what reads it, whichever option names it."""

    @pytest.mark.parametrize("option", ["output", "data_root", "cache_dir", "weights"])
    @pytest.mark.parametrize("path", NO_PATHS, ids=lambda path: path[:3])
    def test_a_run_names_it(self, refused: Refused, quick: Quick, here: Path, option: str, path: str) -> None:
        (here / "loop").symlink_to("loop")
        error = refused(*quick(**{option: path}))
        assert error["kind"] == "bad_path"
        assert error["message"].startswith(f"--{option.replace('_', '-')} '{path[:80]}")
        assert NO_PATHS[path] in error["message"]

    @pytest.mark.parametrize("path", NO_PATHS, ids=lambda path: path[:3])
    def test_so_does_every_other_command(self, refused: Refused, here: Path, path: str) -> None:
        (here / "loop").symlink_to("loop")
        for arguments in (
            ["results", "list", "--output", path],
            ["results", "show", path],
            ["predict", path, "."],
            ["export", path],
            ["bench", "--method", "linear", "--dataset", "digits", "--output", path],
            ["memory", "--method", "linear", "--figure", path],
            ["report", "table1", "--output", path],
            ["cache", "info", "--cache-dir", path],
            ["list", "methods", "--catalog", path],
        ):
            assert refused(*arguments)["kind"] == "bad_path", arguments

    @pytest.mark.parametrize("path", NO_PATHS, ids=lambda path: path[:3])
    def test_there_is_no_dataset_there(self, refused: Refused, quick: Quick, here: Path, path: str) -> None:
        (here / "loop").symlink_to("loop")
        for arguments in (quick(dataset=path), ["data", "info", path], ["data", "audit", path]):
            assert refused(*arguments)["kind"] == "unknown_dataset", arguments

    @pytest.mark.parametrize("trials", [[], ["--trials"]])
    def test_a_folder_of_results_that_is_not_there_is_no_empty_one(self, refused: Refused, trials: list[str]) -> None:
        error = refused("results", "list", "--output", "typo", *trials)
        assert "typo" in error["message"]

    @pytest.mark.skipif(not Path("/proc/self").exists(), reason="there is no /proc")
    @pytest.mark.parametrize("command", ["run", "bench"])
    def test_a_folder_of_the_system_is_no_place_for_results(self, refused: Refused, quick: Quick, command: str) -> None:
        error = refused(command, *quick(output="/proc/results")[1:])
        assert "/proc/results" in error["message"]
        assert "epoch" not in error["hint"]


class TestImages:
    def test_an_official_dataset_without_images_names_its_folder(self, refused: Refused, quick: Quick) -> None:
        error = refused(*quick(dataset="isic2018", data_root="store"))
        assert error["kind"] == "data_missing"
        assert "isic2018" in error["message"]
        assert "store/isic2018" in error["message"]
        assert "https://challenge.isic-archive.com" in error["hint"]

    def test_a_broken_image_is_named(self, refused: Refused, quick: Quick, pictures: Path) -> None:
        broken = pictures / "cat" / "3.png"
        broken.write_bytes(broken.read_bytes()[:400])
        error = refused(*quick())
        assert error["kind"] == "corrupt_image"
        assert str(broken) in error["message"]
        assert "--skip-corrupt" in error["hint"]

    def test_an_empty_image_file_is_named(self, refused: Refused, quick: Quick, pictures: Path) -> None:
        (pictures / "dog" / "5.png").write_bytes(b"")
        error = refused(*quick())
        assert error["kind"] == "corrupt_image"
        assert str(pictures / "dog" / "5.png") in error["message"]
        assert "empty" in error["message"]

    def test_several_broken_images_are_counted(self, refused: Refused, quick: Quick, pictures: Path) -> None:
        for number in range(3):
            (pictures / "dog" / f"{number}.png").write_bytes(b"")
        assert "2 more" in refused(*quick())["message"]

    def test_broken_images_are_skipped_on_request_and_counted(self, cli: Cli, quick: Quick, pictures: Path) -> None:
        (pictures / "dog" / "5.png").write_bytes(b"")
        (pictures / "cat" / "3.png").write_bytes(b"not a picture")
        outcome = cli(*quick(skip_corrupt=True, tracking_uri="none", json=True))
        assert outcome.status == 0, outcome.err
        data = outcome.document["data"]
        assert len(data["skipped"]) == 2
        assert sum("dog/5.png" in line for line in data["skipped"]) == 1
        assert sum("cat/3.png" in line for line in data["skipped"]) == 1
        assert sum(data["images"].values()) == 10
        assert outcome.document["config"]["skip_corrupt"] is True

    def test_skipping_all_images_of_a_class_is_refused(self, refused: Refused, quick: Quick, pictures: Path) -> None:
        for file in (pictures / "dog").iterdir():
            file.write_bytes(b"")
        error = refused(*quick(skip_corrupt=True))
        assert "dog" in error["message"]

    def test_a_class_of_one_image_is_named(self, refused: Refused, quick: Quick, pictures: Path) -> None:
        for number in range(1, 6):
            (pictures / "dog" / f"{number}.png").unlink()
        error = refused(*quick())
        assert error["kind"] == "class_too_small"
        assert "'dog' has 1 image:" in error["message"]
        assert "at least 3" in error["message"]

    def test_a_single_class_is_refused(self, refused: Refused, quick: Quick, pictures: Path) -> None:
        for file in (pictures / "dog").iterdir():
            file.unlink()
        (pictures / "dog").rmdir()
        error = refused(*quick())
        assert error["kind"] == "too_few_classes"
        assert "cat" in error["message"]

    def test_official_split_of_a_dataset_without_one_is_refused(self, refused: Refused, quick: Quick) -> None:
        error = refused(*quick(split="official"))
        assert error["kind"] == "no_official_split"
        assert "--split random" in error["hint"]


class TestCsv:
    def test_a_missing_label_column_is_named_with_those_that_are_there(
        self, refused: Refused, quick: Quick, pictures: Path
    ) -> None:
        table = pictures / "table.csv"
        table.write_text("image,grade\ncat/0.png,a\ndog/0.png,b\n")
        error = refused(*quick(dataset="pictures/table.csv"))
        assert error["kind"] == "missing_column"
        assert "'label'" in error["message"]
        assert "image, grade" in error["message"]
        assert "table.csv" in error["message"]

    def test_the_hint_of_a_missing_column_can_be_followed(
        self, cli: Cli, refused: Refused, quick: Quick, pictures: Path
    ) -> None:
        rows = [f"{name}/{number}.png,{name}" for name in ("cat", "dog") for number in range(6)]
        (pictures / "table.csv").write_text("\n".join(["image,grade", *rows]))
        hint = refused(*quick(dataset="pictures/table.csv"))["hint"]
        advised = next(word for word in hint.split() if "label_column" in word).replace("NAME", "grade")
        outcome = cli(*quick(dataset="pictures/table.csv", set=advised, dry_run=True, json=True))
        assert outcome.status == 0, outcome.out
        assert outcome.document["config"]["dataset_settings"]["label_column"] == "grade"

    @pytest.mark.parametrize("path", ["../outside.png", "/etc/hostname", "cat/../../outside.png", "C:\\x.png"])
    def test_a_path_that_leaves_the_folder_is_named_with_its_line(
        self, refused: Refused, quick: Quick, pictures: Path, path: str
    ) -> None:
        (pictures.parent / "outside.png").write_bytes((pictures / "cat" / "0.png").read_bytes())
        (pictures / "table.csv").write_text(f"image,label\ncat/0.png,a\n{path},b\n")
        error = refused(*quick(dataset="pictures/table.csv"))
        assert error["kind"] == "path_outside"
        assert path in error["message"]
        assert "table.csv, line 3" in error["message"]

    def test_an_image_that_is_not_there_is_named_with_its_line(
        self, refused: Refused, quick: Quick, pictures: Path
    ) -> None:
        (pictures / "table.csv").write_text("image,label\ncat/0.png,a\ncat/99.png,b\n")
        error = refused(*quick(dataset="pictures/table.csv"))
        assert error["kind"] == "missing_image"
        assert "line 3" in error["message"]
        assert "cat/99.png" in error["message"]


class TestWeights:
    def test_a_file_that_is_not_there_is_named(self, refused: Refused, quick: Quick, here: Path) -> None:
        error = refused(*quick(weights="none.pth"))
        assert error["kind"] == "no_weights"
        assert str(here / "none.pth") in error["message"]

    def test_a_file_that_is_not_there_is_found_missing_before_images_are_read(
        self, refused: Refused, quick: Quick, pictures: Path
    ) -> None:
        (pictures / "cat" / "0.png").write_bytes(b"")
        assert refused(*quick(weights="none.pth"))["kind"] == "no_weights"

    @pytest.mark.parametrize("name", ["w.pth", "w.safetensors"])
    @pytest.mark.parametrize("content", [b"", b"garbage", b"PK\x03\x04 cut off"])
    def test_garbage_is_named(self, refused: Refused, quick: Quick, here: Path, name: str, content: bytes) -> None:
        (here / name).write_bytes(content)
        error = refused(*quick(weights=name, normalize="backbone"))
        assert error["kind"] == "bad_weights"
        assert str(here / name) in error["message"]
        assert "safetensors" in error["hint"]

    def test_weights_of_another_model_list_what_does_not_fit(self, refused: Refused, quick: Quick, here: Path) -> None:
        torch.save(timm.create_model("test_vit", num_classes=0).state_dict(), here / "other.pth")
        error = refused(*quick(weights="other.pth", normalize="backbone"))
        assert error["kind"] == "bad_weights"
        for word in (str(here / "other.pth"), "petlbench_micro", "tokens of 64 channels, for 192"):
            assert word in error["message"]
        assert "--backbone" in error["hint"]

    @pytest.mark.parametrize("form", ["zip", "legacy", "pickle"])
    def test_code_in_a_file_is_refused_and_never_run(
        self, refused: Refused, quick: Quick, here: Path, tmp_path: Path, form: str
    ) -> None:
        trap, file = tmp_path / "executed", here / "trap.pth"
        payload = {"model": _Trap(trap)}
        if form == "pickle":
            file.write_bytes(pickle.dumps(payload))
        else:
            torch.save(payload, file, _use_new_zipfile_serialization=form == "zip")
        error = refused(*quick(weights="trap.pth", normalize="backbone"))
        assert error["kind"] == "bad_weights"
        assert "trap.pth" in error["message"]
        assert not trap.exists()

    def test_an_unreachable_hub_says_how_to_give_a_file(
        self, refused: Refused, quick: Quick, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from huggingface_hub import constants

        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
        error = refused(*quick(backbone="vit_tiny_patch16_224", weights="default"), status=1)
        assert error["kind"] == "weights_unavailable"
        assert "vit_tiny_patch16_224.augreg_in21k_ft_in1k" in error["message"]
        assert "--weights FILE" in error["hint"]
        assert "--weights none" in error["hint"]
        assert "--backbone petlbench_micro" in error["hint"]

    @pytest.mark.slow
    def test_a_hub_that_does_not_answer_is_given_up_within_a_minute(
        self, quick: Quick, here: Path, tmp_path: Path
    ) -> None:
        nobody = {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HOME": str(tmp_path / "hub"), "HF_HUB_OFFLINE": "0"}
        command = [
            sys.executable,
            "-m",
            "petlbench",
            *quick(backbone="vit_tiny_patch16_224", weights="default", json=True),
        ]
        done = subprocess.run(
            command, env={**os.environ, **nobody}, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 1, done.stderr
        assert '"weights_unavailable"' in done.stdout
        assert not (here / "results").exists()


class _Trap:
    """An object whose unpickling makes a file."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[object, ...]:
        return (os.mkdir, (str(self.file),))
