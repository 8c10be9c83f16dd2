"""Files of somebody else's, changed at random: no command breaks on one, hangs, leaks, or writes beside its folder."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import chdir, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from petlbench.cli.app import run_command
from tests.cli.commands.test_data import card_without_checksums
from tests.cli.conftest import QUICK, QUICK_TRAINING
from tests.data.official_files import archives

SECRET = "what-is-not-to-be-read"
SECONDS = 60
"""So long may one command take, on a machine that others use."""
RUN = (*QUICK, *QUICK_TRAINING, "--dataset", "isic2016.toml", "--tracking-uri", "none", "--output", "results")
RESULTS = ("--output", "results")
BENCH = ("bench", "--method", "linear,bitfit", "--study", "mine", *RUN)

TEXTS = st.one_of(
    st.sampled_from(
        [
            "../victim",
            "../victim/secret.txt",
            "../../victim/secret.txt",
            "/etc/passwd",
            "~nosuchuser/x",
            ".",
            "..",
            "",
            "a/b",
            "C:\\x",
            "nan",
            "a" * 300,
            "\x1b[31mred",
            "\u202eevil",
            "line\nbreak",
            "=1+1",
            "%(x)s{0}",
            "(a+)+$",
            "1e400",
            "0" * 5000,
            "full",
            "linear",
        ]
    ),
    st.text(max_size=12),
)
VALUES: st.SearchStrategy[Any] = st.one_of(
    st.none(),
    st.booleans(),
    st.sampled_from([0, -1, 1, 2**63, 10**30, 0.5, -0.0, 1e308, float("nan"), float("inf")]),
    st.sampled_from([[], {}, [[]], [None], {"": {}}]),
    TEXTS,
    st.lists(TEXTS, max_size=3),
    st.dictionaries(TEXTS, st.integers(), max_size=2),
)
NAMES = st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=20).filter(
    lambda name: name not in (".", "..") and len(name.encode()) < 200
)


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two finished runs and a failed one, a study, a prepared dataset, its card, and a CSV of images."""
    folder = tmp_path_factory.mktemp("fuzz") / "here"
    folder.mkdir()
    archives("isic2016", folder / "official", images_per_class=2)
    card_without_checksums("isic2016", folder)
    with chdir(folder):
        assert run_command(["data", "prepare", "isic2016.toml", "--from", "official"]) == 0
        assert run_command([*BENCH, "--workers", "0"]) == 0
        images = sorted(Path("data").rglob("*.jpg"))
        rows = [f"{image},{number % 2}" for number, image in enumerate(images)]
        Path("labels.csv").write_text("\n".join(["image,label", *rows]), encoding="utf-8")
        run = next(Path("results").glob("linear-*"))
        shutil.copytree(run, Path("results", "failed"))
        document = json.loads((run / "result.json").read_text(encoding="utf-8"))
        document |= {"run_id": "failed", "status": "failed", "error": {"kind": "x", "message": "y", "hint": ""}}
        Path("results", "failed", "result.json").write_text(json.dumps(document), encoding="utf-8")
    return folder


@contextmanager
def world(template: Path, folder: Path) -> Iterator[Path]:
    """A copy of the template that is the working folder for a while; nothing beside it may change."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(template, folder / "here", symlinks=True)
    (folder / "victim").mkdir()
    (folder / "victim" / "secret.txt").write_text(SECRET, encoding="utf-8")
    before = beside(folder)
    with chdir(folder / "here"):
        yield folder / "here"
    assert beside(folder) == before


def beside(folder: Path) -> dict[Path, tuple[int, int]]:
    """Size and time of all that lies beside the working folder."""
    files = [path for path in folder.rglob("*") if folder / "here" not in (path, *path.parents)]
    return {path: (path.lstat().st_size, path.lstat().st_mtime_ns) for path in files}


def commands(folder: Path, workers: int) -> list[list[str]]:
    """What is said of such a folder: each reads files that may have come from somebody else."""
    bench = (*BENCH, "--workers", str(workers))
    runs = sorted(path.name for path in (folder / "results").iterdir() if path.name.startswith(("linear-", "bitfit-")))
    image = str(next((folder / "official").parent.glob("data/isic2016/files/*/*.jpg")).relative_to(folder))
    rows: list[tuple[str, ...]] = [
        ("results", "list", *RESULTS),
        ("results", "show", runs[0], *RESULTS),
        ("results", "show", "failed", *RESULTS),
        ("results", "diff", *runs, *RESULTS),
        ("results", "rm", "--status", "failed,finished", "--yes", *RESULTS),
        ("results", "rm", "failed", "--yes", *RESULTS),
        ("report", "table1"),
        ("report", "table1", "--study", "mine"),
        ("report", "clinical", "--format", "md,csv", "--output", "tables"),
        ("predict", runs[-1], image, *RESULTS),
        ("predict", runs[-1], "data/isic2016/files/ISBI2016_ISIC_Part3_Test_Data", *RESULTS),
        ("data", "info", "isic2016.toml"),
        ("data", "info", "labels.csv"),
        ("data", "info", "data/isic2016/files"),
        ("data", "prepare", "isic2016.toml", "--from", "official", "--again"),
        ("data", "verify", "isic2016.toml"),
        ("run", "--method", "linear", *RUN),
        ("run", "--method", "lora", *RUN, "--dry-run"),
        bench,
        (*bench, "--dry-run"),
        ("list", "datasets", "--catalog", "."),
    ]
    return [list(row) for row in rows]


def change_a_value(data: st.DataObject, document: Any) -> Any:
    """A JSON document with something in it replaced, removed, or added."""
    keys = list(document) if isinstance(document, dict) else []
    keys = list(range(len(document))) if isinstance(document, list) else keys
    if not keys or data.draw(st.integers(0, 5), "stop here") == 0:
        return data.draw(VALUES, "value")
    key = data.draw(st.sampled_from(keys), "key")
    action = data.draw(st.sampled_from(["descend", "descend", "descend", "remove", "add"]), "action")
    if action == "remove":
        del document[key]
    elif action == "add" and isinstance(document, dict):
        document[data.draw(TEXTS, "new key")] = data.draw(VALUES, "value")
    else:
        document[key] = change_a_value(data, document[key])
    return document


def change_json(data: st.DataObject, text: str) -> str:
    return json.dumps(change_a_value(data, json.loads(text)))


def change_a_line(data: st.DataObject, text: str) -> str:
    """Lines of JSON, with one of them changed, doubled or cut off."""
    lines = text.splitlines()
    place = data.draw(st.integers(0, len(lines) - 1), "line")
    line = lines[place]
    match data.draw(st.sampled_from(["value", "twice", "cut"]), "how"):
        case "value":
            lines[place] = change_json(data, line)
        case "twice":
            lines[place] = 2 * line
        case _:
            lines[place] = line[: len(line) // 2]
    return "\n".join(lines)


def change_a_token(data: st.DataObject, text: str) -> str:
    """A card or a table with one string, number, name or cell replaced."""
    tokens = list(re.finditer(r"\"[^\"\n]*\"|'[^'\n]*'|[\w.]+", text))
    token = data.draw(st.sampled_from(tokens), "token")
    value = data.draw(VALUES, "value")
    written = value if isinstance(value, str) and data.draw(st.booleans(), "bare") else json.dumps(value)
    return text[: token.start()] + written + text[token.end() :]


CHANGES = {".json": change_json, ".jsonl": change_a_line, ".toml": change_a_token, ".csv": change_a_token}
# What lies together, and the commands that read it: what is likely to break something stands twice.
AREAS = {
    "results": (
        [
            "*/result.json",
            "*/result.json",
            "studies/*.json",
            "*.jsonl",
            "*/learned.safetensors",
            "*/predictions.parquet",
        ],
        ["results", "results/odd", "results/studies"],
        {"results", "report", "predict", "run", "bench"},
    ),
    ".": (
        ["*.toml", "*.toml", "data/isic2016/*.*", "data/isic2016/splits/*", "*.csv", "official/*", "data/*/*/*/*.jpg"],
        ["data/isic2016/files", "data/isic2016", "official", "."],
        {"data", "run", "bench", "list"},
    ),
}


def change_a_file(data: st.DataObject, folder: Path, area: str) -> None:
    """Change the content of one file: what it says, or its bytes."""
    pattern = data.draw(st.sampled_from(AREAS[area][0]), "pattern")
    files = [file for file in sorted((folder / area).glob(pattern)) if file.is_file() and not file.is_symlink()]
    file = data.draw(st.sampled_from(files), "file")
    if file.suffix not in CHANGES or data.draw(st.integers(0, 7), "bytes") == 7:
        content = bytearray(file.read_bytes())
        place = data.draw(st.integers(0, max(len(content) - 1, 0)), "place")
        content[place : place + data.draw(st.integers(0, 1 << 12), "length")] = data.draw(st.binary(max_size=8), "new")
        file.write_bytes(content)
    else:
        text = file.read_text(encoding="utf-8", errors="replace")
        with suppress(ValueError):  # of a file that was changed before
            text = CHANGES[file.suffix](data, text)
        file.write_text(text, encoding="utf-8", errors="replace")


def put_an_odd_thing(data: st.DataObject, folder: Path, area: str) -> None:
    """Put something that is no regular file, or has a name nobody expects, where a command looks."""
    name = data.draw(st.one_of(NAMES, st.sampled_from(["x.png", "result.json", "x.toml", "x.json", "-rf"])), "name")
    path = folder / data.draw(st.sampled_from(AREAS[area][1]), "place") / name
    path.parent.mkdir(exist_ok=True)
    if os.path.lexists(path):
        return
    kinds = ["file", "empty", "folder", "pipe", "loop", "device", "dangling", "null", "list", "object", "outside"]
    match data.draw(st.sampled_from(kinds), "kind"):
        case "file":
            path.write_bytes(data.draw(st.binary(max_size=64), "content"))
        case "empty":
            path.touch()
        case "folder":
            (path / "result.json").mkdir(parents=True)
        case "pipe":
            os.mkfifo(path)
        case "loop":
            path.symlink_to(path)
        case "device":
            path.symlink_to("/dev/zero")
        case "dangling":
            path.symlink_to("nowhere")
        case "outside":
            path.symlink_to(folder.parent / "victim" / "secret.txt")
        case text:
            path.write_text({"null": "null", "list": "[]", "object": "{}"}[text], encoding="utf-8")


class HangsError(BaseException):
    """No Exception, so that nothing takes it for a fault of a run."""


class EnoughError(BaseException):
    """No Exception, so that nothing takes the end of the time for a fault that was found."""


@contextmanager
def alarm(seconds: int) -> Iterator[None]:
    """Stop what takes longer."""

    def stop(*_: object) -> None:
        raise HangsError(f"the command took more than {seconds} seconds")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def say(arguments: list[str]) -> None:
    """Say a command, and look at how it ends: an answer, or an error that says what is wrong."""
    with alarm(SECONDS), CliRunner().isolation(input=None) as streams:
        status = run_command(arguments)
        sys.stdout.flush()
        sys.stderr.flush()
        out, err = streams[0].getvalue().decode(), streams[1].getvalue().decode()
    said = f"petlbench {' '.join(arguments)}\n{out[-1500:]}\n{err[-1500:]}"
    assert out or err, said
    assert status in (0, 1, 2), said
    assert '"kind": "internal"' not in out, said
    assert "add --debug to see where" not in err, said
    assert "Traceback" not in err, said
    assert SECRET not in out + err, said
    assert "\x1b" not in out + err, said


def put_to_the_test(data: st.DataObject, template: Path, folder: Path, workers: int = 1) -> None:
    """Change up to three things, then say a command or two."""
    with world(template, folder) as here:
        area = data.draw(st.sampled_from(sorted(AREAS)), "area")
        for _ in range(data.draw(st.integers(1, 3), "changes")):
            data.draw(st.sampled_from([change_a_file, change_a_file, put_an_odd_thing]), "what")(data, here, area)
        choices = [row for row in commands(template, workers) if row[0] in AREAS[area][2]]
        for _ in range(data.draw(st.integers(1, 2), "commands")):
            arguments = data.draw(st.sampled_from(choices), "command")
            say([*arguments, *(["--json"] if data.draw(st.booleans(), "as JSON") else [])])


UNHURRIED = settings(deadline=None, database=None, suppress_health_check=list(HealthCheck))


def test_no_command_breaks_on_a_changed_file(template: Path, tmp_path: Path) -> None:
    end = time.monotonic() + 30

    @settings(UNHURRIED, max_examples=40)
    @given(st.data())
    def attempt(data: st.DataObject) -> None:
        # In this process: another one takes longer to start than its runs take. The long form below has one.
        put_to_the_test(data, template, tmp_path / "world", workers=0)
        if time.monotonic() > end:  # before the draws of an example it would be another way to draw
            raise EnoughError

    with suppress(EnoughError):
        attempt()


@pytest.mark.slow
def test_no_command_breaks_on_two_thousand_changed_files(template: Path, tmp_path: Path) -> None:
    tried = 0

    @settings(UNHURRIED, max_examples=2000)
    @given(st.data())
    def attempt(data: st.DataObject) -> None:
        nonlocal tried
        put_to_the_test(data, template, tmp_path / "world")
        tried += 1

    attempt()
    assert tried >= 2000
    print(f"{tried} inputs")
