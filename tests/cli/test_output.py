"""What reaches a terminal: nothing that steers it, and no password; and what happens when nobody reads it any more."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import petlbench as pb
from petlbench.cli.output import print_facts, print_table, say
from petlbench.core.progress_bars import ShownProgress

Cli = Callable[..., Any]

EVIL = "e\x1b[31mv\x9bi\rl\u202e"
ADDRESS = "http://user:ge@he/im@localhost:1/x?password=geheim"


def test_names_never_steer_the_terminal(capfd: pytest.CaptureFixture[str]) -> None:
    print_table(EVIL, [EVIL, f"{EVIL}>"], [[EVIL, EVIL]], caption=EVIL)
    print_facts(EVIL, {EVIL: EVIL})
    say(EVIL)
    with ShownProgress() as progress:
        progress.say(EVIL)
    streams = capfd.readouterr()
    for text in (streams.out, streams.err):
        assert "e\\x1b[31mv\\x9bi\\rl\\u202e" in text.replace("\n", "").replace(" ", "")
        assert not {"\x1b", "\x9b", "\r", "\u202e"} & set(text)


def test_lines_and_columns_stay(capfd: pytest.CaptureFixture[str]) -> None:
    say("a\tb\r\nc", end="")
    assert capfd.readouterr().out == "a\tb\r\nc"


def test_a_class_and_a_file_that_steer(cli: Cli, here: Path, pictures: Path) -> None:
    (pictures / "cat").rename(pictures / EVIL.replace("\r", ""))
    (pictures / "dog" / "0.png").rename(pictures / "dog" / "\x1b[2J.png")
    for arguments in (["data", "info", "pictures"], ["run", "--method", "x\x1b[2J", "--dataset", "pictures"]):
        outcome = cli(*arguments)
        assert "\x1b" not in outcome.out + outcome.err
        assert "\\x1b" in outcome.out + outcome.err


@pytest.mark.parametrize("print_it", [lambda: say(ADDRESS), lambda: print_facts("title", {"store": ADDRESS})])
def test_no_password_is_printed(capfd: pytest.CaptureFixture[str], print_it: Callable[[], None]) -> None:
    print_it()
    assert "user:***@localhost:1/x?password=***" in capfd.readouterr().out


@pytest.mark.parametrize(
    "arguments",
    [
        ["data", "prepare", "isic2018", "--mirror", "ftp://u:geheim@localhost:1/x"],
        ["sweep", "quick", "--method", "linear", "--dataset", "digits", "--storage", "nosuch://u:geheim@localhost/x"],
        ["run", "--method", "linear", "--dataset", "digits", "--tracking-uri", "ftp://geheim@localhost"],
        ["run", "--method", "linear", "--dataset", "digits", "--weights", "https://u:geheim@localhost/w"],
        ["report", "table1", "--results", "mlflow:nosuch://u:geheim@localhost/x"],
        ["run", "--method", "https://u:geheim@localhost/w", "--dataset", "digits"],
        ["run", "--bogus=https://u:geheim@localhost/w?token=geheim"],
    ],
    ids=lambda arguments: " ".join(arguments[:2]),
)
@pytest.mark.parametrize("form", [[], ["--json"], ["--debug"]])
def test_no_error_holds_a_password(cli: Cli, arguments: list[str], form: list[str]) -> None:
    outcome = cli(*arguments, *form)
    assert outcome.status != 0
    assert "geheim" not in outcome.out + outcome.err


def test_an_error_in_python_holds_none_either() -> None:
    error = pb.InputError(f"{ADDRESS} does not answer", hint=f"see {ADDRESS}")
    assert "geheim" not in f"{error} {error.message} {error.hint} {error!r}"


def test_all_that_is_printed_goes_through_one_function() -> None:
    """``say`` and the tables are the only ones that print; JSON has no character that steers."""
    folder = Path(str(pb.__file__)).parent / "cli"
    for file in folder.rglob("*.py"):
        calls = [node for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.Call)]
        printed = [ast.unparse(call) for call in calls if ast.unparse(call.func) in ("print", "click.echo")]
        if file.name != "output.py":
            assert all(text.startswith("print(json.dumps(") for text in printed), (file, printed)


def test_a_run_that_nobody_listens_to_goes_on_to_its_end(quick: Callable[..., list[str]], here: Path) -> None:
    command = [sys.executable, "-m", "petlbench", *quick(epochs="2", tracking_uri="none")]
    reader, writer = os.pipe()
    process = subprocess.Popen(command, stdout=writer, stderr=writer)
    os.close(writer)
    assert os.read(reader, 1)
    os.close(reader)
    assert process.wait(timeout=300) == 0
    (result,) = Path("results").glob("*/result.json")
    assert json.loads(result.read_text())["status"] == "finished"
    assert len(json.loads(result.read_text())["curve"]) == 2


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&- <&-"])
def test_streams_that_are_closed_before_the_command_begins_stop_nothing(closed: str) -> None:
    command = f"{sys.executable} -m petlbench list methods {closed}"
    done = subprocess.run(["sh", "-c", command], check=False, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert ("Linear probing" in done.stdout) == (closed == "2>&-")


def test_a_long_table_is_drawn_as_a_short_one(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from petlbench.cli import output

    columns = ["run", "status", "test AUC, %>"]
    rows = [["a-b-c", "finished", "1.50"], ["a", "oom", "–"], ["ä中", "", ""], ["x\x1b", "failed", "10.00"]]
    output.print_table("4 runs", columns, rows, caption="one is damaged")
    short = capsys.readouterr().out
    monkeypatch.setattr(output, "_MANY", 3)
    output.print_table("4 runs", columns, rows, caption="one is damaged")
    assert capsys.readouterr().out == short
