"""Help in groups, and what a shell completes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click
import pytest

from petlbench.cli.app import app

Cli = Callable[..., Any]
LARGE = ["run", "bench", "sweep", "recommend"]


@pytest.mark.parametrize("name", LARGE)
def test_help_shows_the_common_options_and_says_how_to_see_the_rest(cli: Cli, name: str) -> None:
    short, whole = cli(name, "--help").out, cli(name, "--help-all").out
    assert short.count("\n  --") <= 16
    assert "--backbone" in short
    assert "--attention-kernel" not in short
    assert f"petlbench {name} --help-all" in short
    command = app.get_command(click.Context(app), name)
    assert command is not None
    options = [each for each in command.params if isinstance(each, click.Option) and not each.hidden]
    assert [each.opts[0] for each in options if each.opts[0] not in whole] == []
    titles = ["Common:", "Data:", "Backbone:", "Training:", "Speed and memory:", "Output:"]
    assert [line for line in whole.splitlines() if line in titles] == titles


def test_every_command_says_in_a_whole_sentence_what_it_does_and_examples_are_not_broken(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    out = cli("--help").out
    assert "..." not in out.partition("Commands:")[2]
    assert "Adapt one backbone to one dataset with one method, and record how well, how large, how fast." in " ".join(
        out.split()
    )
    assert "  Example: petlbench run --method fpt --dataset digits --backbone petlbench_micro --image-size 64\n" in out
    for words in (("recommend",), ("report",), ("results", "list")):
        examples = [line for line in cli(*words, "--help").out.splitlines() if line.startswith("  Example: ")]
        assert len(examples) == 1
        assert not examples[0].endswith(("--backbone", "--format"))


@pytest.mark.parametrize(
    ("words", "answers"),
    [
        ("petlbench run --method bitf", {"bitfit"}),
        ("petlbench bench --method lora,bitf", {"lora,bitfit"}),
        ("petlbench run --dataset lesi", {"lesions"}),
        ("petlbench swe", {"sweep"}),
        ("petlbench run --attention-kernel ea", {"eager"}),
    ],
)
def test_a_shell_completes_names_commands_and_choices(
    cli: Cli, words: str, answers: set[str], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    assert "_PETLBENCH_COMPLETE=bash_complete" in cli("completion", "bash").out
    monkeypatch.setenv("COMP_WORDS", words)
    monkeypatch.setenv("COMP_CWORD", str(len(words.split()) - 1))
    monkeypatch.setenv("_PETLBENCH_COMPLETE", "bash_complete")
    with pytest.raises(SystemExit):
        app.main([], prog_name="petlbench")
    assert set(capfd.readouterr().out.split()) == {f"plain,{answer}" for answer in answers}


def test_a_size_without_a_unit_that_nobody_means_is_refused(cli: Cli) -> None:
    outcome = cli("memory", "--method", "linear", "--budget", "8")
    assert outcome.status == 2
    assert "8 bytes? Write 8GiB, or 8B" in outcome.err


def test_a_name_in_other_letters_is_answered_with_the_one_meant(cli: Cli) -> None:
    for name, meant in (("LoRA", "lora"), ("FPT-plus", "fpt_plus")):
        outcome = cli("run", "--method", name, "--dataset", "digits")
        assert (outcome.status, f"did you mean {meant}?" in outcome.err) == (2, True)
