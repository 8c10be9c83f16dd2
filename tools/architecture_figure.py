"""The house of petlbench, drawn and counted from its import statements.

    python tools/architecture_figure.py                      draws docs/architecture.svg (make figures)
    python tools/architecture_figure.py --output FILE.png    draws another file
    python tools/architecture_figure.py --facts [CHECKOUT]   counts a checkout: files, lines, arrows, circles

Nothing of petlbench is imported: modules are read as syntax trees, layers stand in ``pyproject.toml``, and the way of a
run is the table in ``docs/architecture.md``.
"""

from __future__ import annotations

import argparse
import ast
import re
import tomllib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

CHECKOUT = Path(__file__).resolve().parents[1]
PACKAGE = "petlbench"
PAGE = Path("docs/architecture.md")

_LONG = 50
_MANY = 8


@dataclass(frozen=True)
class Module:
    """A module as its syntax tree says.

    Args:
        name: Its name below the package, such as ``run.resolve``.
        file: Its file.
        tree: Its syntax tree.
        lines: Number of its lines.
    """

    name: str
    file: Path
    tree: ast.Module
    lines: int

    @property
    def room(self) -> str:
        """The entry at the package's root that it belongs to."""
        return self.name.partition(".")[0]

    @cached_property
    def functions(self) -> list[ast.FunctionDef | ast.AsyncFunctionDef]:
        """Every function and method, nested ones too."""
        return [node for node in ast.walk(self.tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]


@dataclass(frozen=True)
class House:
    """The modules of a checkout, and what they import of each other.

    Args:
        checkout: Folder of the checkout.
        modules: The modules by name, without the methods, which are a catalogue.
        layers: Rooms from top to bottom, those side by side in one tuple.
    """

    checkout: Path
    modules: Mapping[str, Module]
    layers: Sequence[tuple[str, ...]]

    @classmethod
    def read(cls, checkout: Path) -> House:
        """The house of a checkout."""
        package = checkout / PACKAGE
        modules = {}
        for file in sorted(package.rglob("*.py")):
            parts = file.relative_to(package).with_suffix("").parts
            name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
            if name and parts[0] != "methods":
                text = file.read_text(encoding="utf-8")
                modules[name] = Module(name, file, ast.parse(text), len(text.splitlines()))
        contracts = tomllib.loads((checkout / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]
        lines = next(contract["layers"] for contract in contracts["contracts"] if contract["type"] == "layers")
        layers = [tuple(name.strip().removeprefix(f"{PACKAGE}.") for name in line.split("|")) for line in lines]
        return cls(checkout, modules, layers)

    @cached_property
    def imports(self) -> Counter[tuple[str, str]]:
        """How many statements of one module import from another, by the two names; those for types alone as well."""
        return Counter(
            (module.name, target)
            for module in self.modules.values()
            for node in ast.walk(module.tree)
            for target in self._targets(node)
            if target != module.name
        )

    @cached_property
    def imports_at_run_time(self) -> Counter[tuple[str, str]]:
        """The same without what stands under ``if TYPE_CHECKING``."""
        for_types = Counter(
            (module.name, target)
            for module in self.modules.values()
            for block in ast.walk(module.tree)
            if isinstance(block, ast.If) and "TYPE_CHECKING" in ast.unparse(block.test)
            for node in ast.walk(block)
            for target in self._targets(node)
        )
        return self.imports - for_types

    @cached_property
    def arrows(self) -> Counter[tuple[str, str]]:
        """How many statements of one room import from another, by the two names."""
        arrows: Counter[tuple[str, str]] = Counter()
        for (source, target), count in self.imports.items():
            rooms = source.partition(".")[0], target.partition(".")[0]
            if rooms[0] != rooms[1]:
                arrows[rooms] += count
        return arrows

    def floor(self, room: str) -> int | None:
        """The layer of a room, 0 at the top; None where the contract does not name it."""
        return next((number for number, rooms in enumerate(self.layers) if room in rooms), None)

    def upward(self) -> list[tuple[str, str]]:
        """Pairs of modules of which the lower one imports from the higher one, or from a room beside it."""
        pairs = []
        for source, target in self.imports:
            rooms = source.partition(".")[0], target.partition(".")[0]
            floors = [self.floor(room) for room in rooms]
            if rooms[0] != rooms[1] and None not in floors and floors[0] >= floors[1]:  # type: ignore[operator]
                pairs.append((source, target))
        return pairs

    def _targets(self, node: ast.AST) -> Iterator[str]:
        """The modules of the package that a statement imports from."""
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            # What is imported may be a module itself: from petlbench.metrics import scores.
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            names = [name if self._module(name) in self.modules else node.module for name in names]
        else:
            return
        yield from {self._module(name) for name in names} & self.modules.keys()

    @staticmethod
    def _module(name: str) -> str:
        return name.removeprefix(f"{PACKAGE}.") if name.startswith(f"{PACKAGE}.") else ""


def circles(imports: Iterable[tuple[str, str]]) -> list[list[str]]:
    """Groups of modules that import each other on some way round: strongly connected components (Tarjan 1972)."""
    targets: dict[str, list[str]] = {}
    for source, target in imports:
        targets.setdefault(source, []).append(target)
    number: dict[str, int] = {}
    lowest: dict[str, int] = {}
    stack: list[str] = []
    groups: list[list[str]] = []

    def visit(module: str) -> None:
        number[module] = lowest[module] = len(number)
        stack.append(module)
        for target in targets.get(module, ()):
            if target not in number:
                visit(target)
                lowest[module] = min(lowest[module], lowest[target])
            elif target in stack:
                lowest[module] = min(lowest[module], number[target])
        if lowest[module] == number[module]:
            start = stack.index(module)
            groups.append(stack[start:])
            del stack[start:]

    for module in targets:
        if module not in number:
            visit(module)
    return [group for group in groups if len(group) > 1]


def read_way(page: Path, heading: str) -> list[str]:
    """The modules that a section of the page names, in order: the first one of each row or item.

    Args:
        page: The page, in which files stand as ``run/resolve.py`` in backticks.
        heading: The section's heading.
    """
    text = page.read_text(encoding="utf-8") if page.is_file() else ""
    section = text.partition(f"## {heading}\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^(?:\| *\d+ *\||\d+\.) *`([\w/]+)\.py`", section, re.MULTILINE)
    return [row.replace("/", ".") for row in rows]


def facts(house: House) -> dict[str, int | str]:
    """The figures of the house, by what they count."""
    modules = house.modules.values()
    functions = [node for module in modules for node in module.functions]
    many = [node for node in functions if _parameters(node) > _MANY]
    names = Counter(module.file.name for module in modules if module.file.name != "__init__.py")
    entries = [entry for entry in (house.checkout / PACKAGE).iterdir() if _is_entry(entry)]
    image = read_way(house.checkout / PAGE, "The way of an image")
    return {
        "entries at the package's root": len(entries),
        "layers of import-linter": len(house.layers),
        "lines of Python, without methods": sum(module.lines for module in modules) + _lines_of_root(house),
        "files": len(house.modules) + 1,
        f"functions over {_LONG} lines": sum((node.end_lineno or 0) - node.lineno >= _LONG for node in functions),
        f"functions with over {_MANY} parameters": sum(not _is_command(node) for node in many),
        "click commands with as many": sum(_is_command(node) for node in many),
        "file names used at least twice": sum(count > 1 for count in names.values()),
        "arrows between rooms": len(house.arrows),
        "arrows that point up": len(house.upward()),
        "circles between modules": len(circles(house.imports_at_run_time)),
        "circles, imports for types counted": len(circles(house.imports)),
        "modules from card to cell": len(image) or "–",
    }


def _is_entry(path: Path) -> bool:
    is_room = path.is_dir() and not path.is_symlink() and path.name != "__pycache__"
    return is_room or path.suffix == ".py"


def _lines_of_root(house: House) -> int:
    return len((house.checkout / PACKAGE / "__init__.py").read_text(encoding="utf-8").splitlines())


def _parameters(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    given = node.args
    names = [each.arg for each in (*given.posonlyargs, *given.args, *given.kwonlyargs)]
    return len([name for name in names if name not in ("self", "cls")]) + bool(given.vararg) + bool(given.kwarg)


def _is_command(node: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    return any(re.match(r"[\w.]*\b(command|group)\(", ast.unparse(each)) for each in node.decorator_list)


def draw(house: House, way: Sequence[str], file: Path) -> None:
    """Draw the rooms as layers, the arrows between them, and the way of a run through them.

    Args:
        house: The house.
        way: Names of the modules that a run goes through, in order.
        file: The file, whose ending says the format; the same house gives the same bytes.
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure

    style = {"svg.hashsalt": PACKAGE, "svg.fonttype": "none", "font.family": "DejaVu Sans", "font.size": 7}
    with mpl.rc_context(style):
        rooms = _in_order(house)
        heights = {room: -float(number) for number, room in enumerate(rooms)}
        figure = Figure(figsize=(11, 0.52 * len(rooms) + 0.9))
        axes = figure.add_axes((0.005, 0.005, 0.99, 0.96))
        axes.set_xlim(0, 22)
        axes.set_ylim(-len(rooms) + 0.3, 0.75)
        axes.axis("off")
        axes.text(0.1, 0.62, "rooms, from top to bottom", weight="bold")
        axes.text(3.9, 0.62, "the way of a run, step by step", weight="bold", color=_WAY)
        axes.text(21.9, 0.62, "which room imports from which", weight="bold", color="0.4", ha="right")
        for room, height in heights.items():
            _draw_room(axes, house, room, height)
        for (source, target), count in sorted(house.arrows.items()):
            if source in heights and target in heights:
                _draw_arrow(axes, heights[source], heights[target], count)
        _draw_way(axes, way, heights)
        figure.savefig(file, metadata={"Date": None, "Creator": None} if file.suffix == ".svg" else None, dpi=110)


def _in_order(house: House) -> list[str]:
    """The rooms from top to bottom; the API, which no layer names, stands below the command line, which calls it."""
    rooms = [room for layer in house.layers for room in layer]
    if "api" in house.modules and "api" not in rooms:
        rooms.insert(rooms.index("cli") + 1, "api")
    return rooms


_WAY = "#b3421b"
_LEFT, _RIGHT = 0.0, 18.0


def _draw_room(axes: Any, house: House, room: str, height: float) -> None:
    """A room as a band, with its name and its size."""
    from matplotlib.patches import FancyBboxPatch

    modules = [module for module in house.modules.values() if module.room == room]
    lines = sum(module.lines for module in modules)
    band = FancyBboxPatch(
        (_LEFT + 0.1, height - 0.36),
        _RIGHT - 0.2,
        0.72,
        boxstyle="round,pad=0,rounding_size=0.1",
        fc="#eef2f6",
        ec="none",
    )
    axes.add_patch(band)
    axes.text(_LEFT + 0.3, height + 0.1, f"{room}/" if len(modules) > 1 else f"{room}.py", weight="bold", va="center")
    files = f"{len(modules)} files, " if len(modules) > 1 else ""
    axes.text(_LEFT + 0.3, height - 0.2, f"{files}{lines:,} lines", color="0.45", size=5.5, va="center")


def _draw_arrow(axes: Any, start: float, end: float, count: int) -> None:
    """An arrow between two rooms, wide where many statements import; one that points up is red."""
    from matplotlib.patches import FancyArrowPatch

    points_up = end > start
    bulge = 0.75 - 0.022 * abs(start - end)
    arrow = FancyArrowPatch(
        (_RIGHT, start - 0.1),
        (_RIGHT, end + 0.1),
        connectionstyle=f"arc3,rad={bulge if points_up else -bulge}",
        arrowstyle="-|>,head_length=2.5,head_width=1.2",
        lw=0.25 + 0.3 * count**0.5,
        color="#d00000" if points_up else "#4a6785",
        alpha=0.9 if points_up else 0.4,
        shrinkA=0,
        shrinkB=0,
    )
    axes.add_patch(arrow)


def _draw_way(axes: Any, way: Sequence[str], heights: Mapping[str, float]) -> None:
    """The modules of a way, from left to right as they come, each in its room."""
    steps = [(number, module) for number, module in enumerate(way, 1) if module.partition(".")[0] in heights]
    if not steps:
        return
    step = (_RIGHT - 4.2) / len(steps)
    points = [(4.0 + step * index, heights[module.partition(".")[0]] + 0.08) for index, (_, module) in enumerate(steps)]
    axes.plot(*zip(*points, strict=True), color=_WAY, lw=1.2, alpha=0.55, zorder=3)
    last: dict[float, int] = {}
    for index, ((x, y), (number, module)) in enumerate(zip(points, steps, strict=True)):
        axes.plot(x, y, "o", ms=8.5, color=_WAY, zorder=4)
        axes.text(x, y - 0.015, str(number), color="white", size=5, weight="bold", ha="center", va="center", zorder=5)
        below = last.get(y) != index - 1
        last[y] = index if below else -1
        name, behind = module.rpartition(".")[2], {"fc": "#eef2f6", "ec": "none", "pad": 0.4}
        axes.text(x, y - 0.3 if below else y + 0.24, name, size=5.8, ha="center", va="center", zorder=5, bbox=behind)


def main() -> None:
    """Draw or count, as the command line says."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("checkout", nargs="?", type=Path, default=CHECKOUT, help="default: this one")
    parser.add_argument("--facts", action="store_true", help="print the figures of the house, and draw nothing")
    parser.add_argument("--output", type=Path, help="default: docs/architecture.svg of the checkout")
    options = parser.parse_args()
    house = House.read(options.checkout)
    if options.facts:
        for name, value in facts(house).items():
            print(f"{value:>7,}  {name}" if isinstance(value, int) else f"{value:>7}  {name}")
        for group in circles(house.imports):
            print(f"\ncircle: {', '.join(group)}")
        for source, target in house.upward():
            print(f"\nup: {source} imports from {target}")
        return
    file = options.output or options.checkout / PAGE.with_suffix(".svg")
    draw(house, read_way(options.checkout / PAGE, "The way of a run"), file)
    print(file)


if __name__ == "__main__":
    main()
