"""Pages of the site that say what the code says, and files outside docs/ that pages link to; called by MkDocs."""

from __future__ import annotations

import base64
import json
import posixpath
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

# Files of the checkout that are pages, too.
TOP = {
    "CONTRIBUTING.md": "top/contributing.md",
    "CHANGELOG.md": "top/changelog.md",
    "datasets/README.md": "top/datasets.md",
    "sweeps/README.md": "top/sweeps.md",
    "reports/README.md": "top/reports.md",
    "reports/published/README.md": "top/published.md",
    "README.md": "index.md",
}
GALLERY = "gallery/index.md"
SHIM = "assets/iframe-worker.js"
_LINK = re.compile(r"(?<!!)\[([^\]]*)\]\(([^)\s:]+)\)")
_SECTIONS = {
    "runs": "Running",
    "searches": "Searching",
    "results": "Results",
    "bundles": "Handing on",
    "learned": "What was learned",
    "data": "Data",
    "recommendation": "Recommending",
    "forecasts": "Forecasts",
}


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Put the gallery into the navigation where it was made."""
    if (ROOT / "docs" / GALLERY).exists():
        first = next(iter(config.nav or ()))
        first["Start"].insert(1, {"Gallery": GALLERY})
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are made."""
    from mkdocs.structure.files import File

    pages = {path: _read(name) for name, path in TOP.items() if path != "index.md" and (ROOT / name).exists()}
    pages |= {path: make() for path, make in MADE.items()}
    for notebook in sorted((ROOT / "docs/tutorials").glob("*.ipynb")):
        pages[f"tutorials/{notebook.stem}.md"] = notebook_page(json.loads(notebook.read_text(encoding="utf-8")))
    for path, content in pages.items():
        files.append(File.generated(config, path, content=content))
    files.append(File.generated(config, SHIM, content=(Path(__file__).parent / "iframe-worker.js").read_text()))
    for file in list(files):
        if file.src_uri.endswith(".ipynb"):
            files.remove(file)
    return files


def on_post_build(config: MkDocsConfig) -> None:
    """Take away the page of a server's errors, whose addresses lead nowhere from the disk."""
    (Path(config.site_dir) / "404.html").unlink(missing_ok=True)


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Lead links to where their files are pages; a link to a file that is none becomes its text."""
    of = {path: name for name, path in TOP.items()}
    source = of.get(page.file.src_uri, f"docs/{page.file.src_uri}")

    def lead(match: re.Match[str]) -> str:
        path, mark, anchor = match[2].partition("#")
        if not path or page.file.src_uri.startswith("reference/"):
            return match[0]
        target = posixpath.normpath(posixpath.join(posixpath.dirname(source), path))
        uri = TOP.get(target) or target.removeprefix("docs/").replace(".ipynb", ".md")
        if files.get_file_from_path(uri) is None:
            return match[1] if (ROOT / target).exists() else match[0]
        return f"[{match[1]}]({posixpath.relpath(uri, posixpath.dirname(page.file.src_uri) or '.')}{mark}{anchor})"

    return _LINK.sub(lead, markdown)


def notebook_page(notebook: Mapping[str, Any]) -> str:
    """A notebook as it was executed, as a page."""
    parts = []
    for cell in notebook["cells"]:
        source = "".join(cell["source"])
        parts.append(source if cell["cell_type"] == "markdown" else f"```python\n{source}\n```")
        for output in cell.get("outputs", ()):
            data = output.get("data", {})
            if "image/png" in data:
                image = "".join(data["image/png"]).strip()
                base64.b64decode(image, validate=False)
                parts.append(f"![figure](data:image/png;base64,{image})")
            elif text := "".join(output.get("text", data.get("text/plain", ""))).rstrip():
                parts.append(f"```text\n{text}\n```")
    return "\n\n".join(parts) + "\n"


def _read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def _methods() -> str:
    import petlbench as pb

    rows = [
        (f"`{row['name']}`", row["title"], row.get("family", ""), row.get("year", ""), _address(row.get("paper", "")))
        for row in pb.list_methods().to_rows()
    ]
    text = "Made from the cards of the methods. [Methods](../methods.md) says what each learns."
    return f"# All methods\n\n{text}\n\n{_table(('name', 'title', 'family', 'year', 'paper'), rows)}\n"


def _datasets() -> str:
    import petlbench as pb

    rows = [
        (
            f"`{row['name']}`",
            row["title"],
            row.get("modality", ""),
            _count(row.get("classes", "")),
            row.get("licence", ""),
            _address(row.get("home", "")),
        )
        for row in pb.list_datasets().to_rows()
    ]
    text = "Made from the cards of the datasets. [Adding a dataset](../adding_a_dataset.md) says how to add yours."
    return f"# All datasets\n\n{text}\n\n{_table(('name', 'title', 'modality', 'classes', 'licence', 'page'), rows)}\n"


def _count(classes: int | Sequence[str]) -> object:
    return classes if isinstance(classes, int) else len(classes) or ""


def _metrics() -> str:
    import petlbench as pb

    rows = [
        (f"`{row['name']}`", row["title"], row.get("direction", ""), row.get("unit", "%"))
        for row in pb.list_metrics().to_rows()
    ]
    text = "Made from the registry. [How scores are defined](../scores.md) says what they are."
    return f"# All metrics\n\n{text}\n\n{_table(('name', 'title', 'better', 'unit'), rows)}\n"


def _result() -> str:
    from petlbench.results.result import Result

    schema = Result.model_json_schema(mode="serialization")
    models = {"Result": schema, **schema.get("$defs", {})}
    parts = [
        "# result.json",
        "Made from the model that reads and writes it. Sizes are bytes, times seconds, ratios and scores fractions. "
        "Fields may be added, none is renamed; a file of a newer schema is refused by an older petlbench.",
    ]
    for name, model in models.items():
        if "properties" in model:
            rows = [
                (
                    f"`{field}`",
                    _type(each),
                    "yes" if field in model.get("required", ()) else "",
                    each.get("description", ""),
                )
                for field, each in model["properties"].items()
            ]
            about = " ".join(str(model.get("description", "")).split())
            parts += [f"## {name}", about, _table(("field", "type", "always", "what it is"), rows)]
    return "\n\n".join(filter(None, parts)) + "\n"


def _type(field: Mapping[str, Any]) -> str:
    """The type of a field of a JSON schema, in words."""
    if "$ref" in field:
        name = field["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    if "anyOf" in field:
        return " or ".join(dict.fromkeys(map(_type, field["anyOf"])))
    if "enum" in field:
        return ", ".join(f"`{value}`" for value in field["enum"])
    kind = str(field.get("type", "any"))
    if kind == "array":
        return f"list of {_type(field.get('items', {}))}"
    inner = field.get("additionalProperties")
    return f"object of {_type(inner)}" if kind == "object" and isinstance(inner, Mapping) and inner else kind


def _exports() -> list[tuple[str, str]]:
    """The names that ``import petlbench`` gives, each with its module."""
    names = re.findall(r"^from \.(\S+) import (\w+) as", _read("petlbench/__init__.pyi"), re.MULTILINE)
    return [(name, f"petlbench.{module}") for module, name in names]


def _functions() -> str:
    parts = ["# Functions", "What `import petlbench as pb` gives to be called: `pb.run`, `pb.adapt`, …"]
    for key, title in _SECTIONS.items():
        members = [f"::: {module}.{name}" for name, module in _exports() if module == f"petlbench.api.{key}"]
        parts += [f"## {title}", *members] if members else []
    lists = [f"::: {module}.{name}" for name, module in _exports() if module == "petlbench.models.listing"]
    return "\n\n".join([*parts, "## Lists", *lists]) + "\n"


def _classes() -> str:
    others = [
        f"::: {module}.{name}"
        for name, module in _exports()
        if not module.startswith("petlbench.api.") and module != "petlbench.models.listing"
    ]
    head = ["# Classes", "What settings, results, methods and other files of your own are made of.", "## All"]
    return "\n\n".join([*head, *others]) + "\n"


def _address(text: str) -> str:
    return f"[{text.removeprefix('https://').rstrip('/')}]({text})" if str(text).startswith("https://") else ""


def _table(headings: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    lines = [[str(cell).replace("|", "\\|").replace("\n", " ").replace("<", "&lt;") for cell in row] for row in rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (headings, ["---"] * len(headings), *lines))


MADE: Mapping[str, Callable[[], str]] = {
    "reference/methods.md": _methods,
    "reference/datasets.md": _datasets,
    "reference/metrics.md": _metrics,
    "reference/result.md": _result,
    "reference/functions.md": _functions,
    "reference/classes.md": _classes,
}
