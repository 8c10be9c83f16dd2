"""Weights from files: what fits loads to the last bit, what does not is refused, and nothing in a file is run."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any, cast

import pytest
import timm
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from timm.layers import resample_abs_pos_embed
from torch import Tensor, nn

from petlbench.core.errors import InputError, PetlbenchError, RunError
from petlbench.models.registry import build_backbone, resolve_backbone
from petlbench.models.weights import load_weights

# A backbone of 0.4 million parameters, made for tests: 6 blocks of width 64, trained at 160 pixels.
NAME = resolve_backbone("test_vit")
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def source() -> Any:
    """A classifier of 1000 classes at 160 pixels, as a checkpoint would hold it."""
    torch.manual_seed(3)
    return timm.create_model("test_vit", num_classes=1000).eval()


@pytest.fixture(scope="module")
def state(source: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in source.state_dict().items()}


@pytest.fixture(scope="module")
def image() -> Tensor:
    return torch.randn(2, 3, 160, 160, generator=torch.Generator().manual_seed(0))


def built(file: Path, image_size: int = 160) -> Any:
    torch.manual_seed(4)
    backbone = build_backbone(NAME, image_size, str(file), CPU)
    backbone.module.eval()
    return backbone


def refused(file: Path) -> InputError:
    with pytest.raises(InputError) as caught:
        built(file, 32)
    assert str(file) in caught.value.message
    return caught.value


def saved(folder: Path, content: object, name: str = "w.pth") -> Path:
    torch.save(content, folder / name)
    return folder / name


class TestSameModel:
    @pytest.mark.parametrize("form", ["w.safetensors", "w.pth", "w.bin", "legacy.pt"])
    def test_a_file_of_the_same_model_gives_the_same_outputs(
        self, tmp_path: Path, source: Any, state: dict[str, Tensor], image: Tensor, form: str
    ) -> None:
        file = tmp_path / form
        if form.endswith("safetensors"):
            save_file(state, file)
        else:
            torch.save(state, file, _use_new_zipfile_serialization=form != "legacy.pt")
        with torch.no_grad():
            assert torch.equal(
                built(file).pooled(image), source.forward_head(source.forward_features(image), pre_logits=True)
            )

    @pytest.mark.parametrize("wrapper", ["state_dict", "model", "model_ema", "state_dict_ema"])
    @pytest.mark.parametrize("prefix", ["", "module."])
    def test_wrappers_of_training_scripts_are_taken_off(
        self, tmp_path: Path, state: dict[str, Tensor], wrapper: str, prefix: str
    ) -> None:
        wrapped = {wrapper: {prefix + name: tensor for name, tensor in state.items()}, "epoch": 7, "args": {"lr": 0.1}}
        _same_tensors(built(saved(tmp_path, wrapped)).module, state)

    def test_the_prefix_alone_is_taken_off(self, tmp_path: Path, state: dict[str, Tensor]) -> None:
        _same_tensors(
            built(saved(tmp_path, {f"module.{name}": tensor for name, tensor in state.items()})).module, state
        )

    def test_the_classifier_of_the_file_is_left_out(self, tmp_path: Path, state: dict[str, Tensor]) -> None:
        module = built(saved(tmp_path, state)).module
        assert "head.weight" in state
        assert not [name for name in module.state_dict() if name.startswith("head")]

    def test_a_file_without_a_classifier_loads(self, tmp_path: Path, state: dict[str, Tensor]) -> None:
        headless = {name: tensor for name, tensor in state.items() if not name.startswith("head.")}
        _same_tensors(built(saved(tmp_path, headless)).module, state)

    @pytest.mark.parametrize("size", [32, 160, 256])
    def test_the_position_table_is_resized_to_the_image(
        self, tmp_path: Path, state: dict[str, Tensor], size: int
    ) -> None:
        module = built(saved(tmp_path, state), size).module
        grid = size // 16
        expected = resample_abs_pos_embed(
            state["pos_embed"], new_size=[grid, grid], num_prefix_tokens=1, interpolation="bicubic", antialias=True
        )
        assert module.pos_embed.shape == (1, grid * grid + 1, 64)
        torch.testing.assert_close(module.pos_embed.detach(), expected)
        _same_tensors(module, {name: tensor for name, tensor in state.items() if name != "pos_embed"})

    def test_half_precision_in_the_file_becomes_the_models(self, tmp_path: Path, state: dict[str, Tensor]) -> None:
        module = built(saved(tmp_path, {name: tensor.half() for name, tensor in state.items()})).module
        assert {tensor.dtype for tensor in module.parameters()} == {torch.float32}
        torch.testing.assert_close(module.norm.weight.detach(), state["norm.weight"].half().float())

    def test_registers_are_kept_at_another_size(self, tmp_path: Path) -> None:
        torch.manual_seed(0)
        other = timm.create_model("test_vit2", img_size=96, num_classes=0)
        torch.save(other.state_dict(), tmp_path / "w.pth")
        name = resolve_backbone("test_vit2")
        module = cast("Any", build_backbone(name, 64, str(tmp_path / "w.pth"), CPU).module)
        assert torch.equal(module.reg_token, other.reg_token)
        assert module.pos_embed.shape == (1, 17, 64)

    def test_the_224_table_of_a_published_size_serves_other_sizes(self, tmp_path: Path) -> None:
        torch.manual_seed(0)
        published = timm.create_model("vit_tiny_patch16_224", num_classes=1000)
        file, name = saved(tmp_path, published.state_dict()), resolve_backbone("vit_tiny_patch16_224")
        for size, tokens in ((64, 17), (512, 1025)):
            module = cast("Any", build_backbone(name, size, str(file), CPU).module)
            assert module.pos_embed.shape == (1, tokens, 192)
            assert torch.equal(module.pos_embed[:, 0], published.pos_embed[:, 0])
            assert torch.equal(module.norm.weight, published.norm.weight)


class TestAnotherModel:
    def test_what_does_not_fit_is_listed(self, tmp_path: Path, state: dict[str, Tensor]) -> None:
        changed = dict(state)
        del changed["norm.weight"]
        changed["colour"] = torch.zeros(3)
        changed["blocks.0.mlp.fc1.bias"] = torch.zeros(5)
        error = refused(saved(tmp_path, changed))
        assert error.kind == "bad_weights"
        assert NAME in error.message
        assert "missing norm.weight" in error.message
        assert "unexpected colour" in error.message
        assert "blocks.0.mlp.fc1.bias is (5,), wanted (192,)" in error.message
        assert "more" not in error.message
        assert "--backbone" in error.hint

    def test_a_long_list_is_cut(self, tmp_path: Path, state: dict[str, Tensor]) -> None:
        short = {name: tensor for name, tensor in state.items() if not name.startswith("blocks.1")}
        message = refused(saved(tmp_path, short)).message
        assert message.count("missing ") == 5
        assert "and 7 more" in message  # a block has 12 tensors

    @pytest.mark.parametrize("other", ["vit_tiny_patch16_224", "test_resnet", "test_vit2"])
    def test_a_file_of_another_model_is_refused(self, tmp_path: Path, other: str) -> None:
        error = refused(saved(tmp_path, timm.create_model(other, num_classes=0).state_dict()))
        assert error.kind == "bad_weights"

    def test_nothing_is_half_loaded(self, tmp_path: Path, state: dict[str, Tensor]) -> None:
        file = saved(tmp_path, {**state, "colour": torch.zeros(1)})
        module = timm.create_model("test_vit", num_classes=0)
        before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
        with pytest.raises(InputError):
            load_weights(module, NAME, str(file))
        assert all(torch.equal(before[name], tensor) for name, tensor in module.state_dict().items())

    @pytest.mark.parametrize(
        "content",
        [[], [1, 2], torch.zeros(3), 7, "text", None, {}, {"a": 1}, {1: torch.zeros(2)}, {"model": [1]}, {"model": {}}],
        ids=repr,
    )
    def test_a_file_that_holds_something_else_is_refused(self, tmp_path: Path, content: object) -> None:
        assert refused(saved(tmp_path, content)).kind == "bad_weights"


class TestUnreadable:
    def test_a_file_that_is_not_there_is_named_with_what_to_do(self, tmp_path: Path) -> None:
        error = refused(tmp_path / "absent.pth")
        assert error.kind == "no_weights"
        assert error.hint

    def test_a_folder_is_no_file(self, tmp_path: Path) -> None:
        assert refused(tmp_path).kind == "no_weights"

    @pytest.mark.parametrize("suffix", ["pth", "bin", "safetensors"])
    @settings(max_examples=60, deadline=None)
    @example(content=b"\x80\x020")
    @given(content=st.one_of(st.binary(max_size=64), st.binary(max_size=64).map(lambda tail: b"\x80\x02" + tail)))
    def test_no_content_gets_through(
        self, tmp_path_factory: pytest.TempPathFactory, suffix: str, content: bytes
    ) -> None:
        file = tmp_path_factory.getbasetemp() / f"random.{suffix}"
        file.write_bytes(content)
        module = nn.Linear(2, 2)
        with pytest.raises(InputError) as caught:
            load_weights(module, NAME, str(file))
        assert caught.value.kind == "bad_weights"
        assert str(file) in caught.value.message

    @pytest.mark.parametrize("suffix", ["pth", "safetensors"])
    @pytest.mark.parametrize("share", [0.001, 0.5, 0.999])
    def test_a_file_that_was_cut_off_is_refused(
        self, tmp_path: Path, state: dict[str, Tensor], suffix: str, share: float
    ) -> None:
        file = tmp_path / f"w.{suffix}"
        (save_file if suffix == "safetensors" else torch.save)(state, file)
        whole = file.read_bytes()
        file.write_bytes(whole[: int(len(whole) * share)])
        error = refused(file)
        assert error.kind == "bad_weights"
        assert "tensors alone" in error.hint

    @pytest.mark.parametrize("form", ["zip", "legacy", "pickle"])
    @pytest.mark.parametrize("suffix", ["pth", "safetensors"])
    def test_code_is_never_run(self, tmp_path: Path, form: str, suffix: str) -> None:
        trap, file = tmp_path / "executed", tmp_path / f"w.{suffix}"
        if form == "pickle":
            file.write_bytes(pickle.dumps(_Trap(trap)))
        else:
            torch.save({"state_dict": _Trap(trap)}, file, _use_new_zipfile_serialization=form == "zip")
        assert refused(file).kind == "bad_weights"
        assert not trap.exists()
        # The trap works: what is refused here would have been run by a plain load.
        if form != "pickle" and suffix == "pth":
            torch.load(file, weights_only=False)
            assert trap.exists()


class TestHub:
    def test_none_leaves_the_random_weights(self) -> None:
        module = nn.Linear(2, 2)
        before = module.weight.detach().clone()
        load_weights(module, NAME, "none")
        assert torch.equal(module.weight, before)

    def test_a_name_without_published_weights_is_refused(self) -> None:
        name = "vit_small_patch16_18x2_224"
        with pytest.raises(InputError) as caught:
            load_weights(nn.Linear(2, 2), name, "default")
        assert caught.value.kind == "no_weights"
        assert name in caught.value.message
        assert "--weights FILE" in caught.value.hint

    @pytest.mark.parametrize("reason", [OSError("no route"), ValueError("odd"), TimeoutError("late")])
    def test_whatever_the_hub_raises_says_how_to_give_a_file(
        self, monkeypatch: pytest.MonkeyPatch, reason: Exception
    ) -> None:
        def unreachable(*_: object, **__: object) -> None:
            raise reason

        monkeypatch.setattr("timm.models.load_state_dict_from_hf", unreachable)
        with pytest.raises(RunError) as caught:
            load_weights(nn.Linear(2, 2), NAME, "default")
        assert caught.value.kind == "weights_unavailable"
        assert NAME in caught.value.message
        assert type(reason).__name__ in caught.value.message
        assert "--weights FILE" in caught.value.hint

    def test_weights_of_the_hub_are_loaded(self, monkeypatch: pytest.MonkeyPatch, state: dict[str, Tensor]) -> None:
        calls: list[str] = []

        def fetch(repository: str, *_: object, weights_only: bool, **__: object) -> dict[str, Tensor]:
            assert weights_only
            calls.append(repository)
            return state

        monkeypatch.setattr("timm.models.load_state_dict_from_hf", fetch)
        _same_tensors(build_backbone(NAME, 160, "default", CPU).module, state)
        assert calls == [f"timm/{NAME}"]

    def test_an_error_of_ours_is_passed_on(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def ours(*_: object, **__: object) -> None:
            raise PetlbenchError("as it is")

        monkeypatch.setattr("timm.models.load_state_dict_from_hf", ours)
        with pytest.raises(PetlbenchError, match="as it is"):
            load_weights(nn.Linear(2, 2), NAME, "default")


def _same_tensors(module: nn.Module, expected: dict[str, Tensor]) -> None:
    found = module.state_dict()
    wanted = {name: tensor for name, tensor in expected.items() if not name.startswith("head.")}
    assert set(wanted) <= set(found)
    for name, tensor in wanted.items():
        assert torch.equal(found[name], tensor), name


class _Trap:
    """An object whose unpickling makes a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[object, ...]:
        return (os.makedirs, (str(self.folder), 0o777, True))
