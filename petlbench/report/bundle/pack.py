"""Packing a study: what others need to check it and to make its tables, and nothing that is nobody's business."""

from __future__ import annotations

import json
import shutil
import tempfile
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import petlbench
from petlbench.core.catalog import Catalog
from petlbench.core.environment import file_digest
from petlbench.core.errors import InputError, RunError
from petlbench.core.files import check_writable, write_atomically
from petlbench.core.progress import Progress
from petlbench.core.user_files import inside, open_file, read_bytes, read_json
from petlbench.data.manifest import pathless_manifest
from petlbench.report.bundle.opened import DESCRIPTION, SCHEMA, SUMS, TABLES, Bundle
from petlbench.report.bundle.readme import commands_of, readme_of
from petlbench.report.bundle.scrub import Scrubber, is_elsewhere
from petlbench.report.bundle.tables import make_report
from petlbench.report.render.data_files import JSON
from petlbench.report.render.markdown import MARKDOWN
from petlbench.results.evaluation import FOLDER as EVALUATIONS
from petlbench.results.evaluation import read_evaluations
from petlbench.results.journal import READS_FILE, read_reads
from petlbench.results.predictions import read_rows
from petlbench.results.result import FILE, parse_result
from petlbench.results.stored import Stored
from petlbench.results.table import Results, load_results, read_studies

DEFAULT_REPORT = "table1"
# What of a reading of a test split says nothing of the machine.
_READ = ("dataset", "split", "run_id", "evaluation", "time", "continued")
_NAMES = ("image_id", "group")


@dataclass(frozen=True)
class PackOptions:
    """What goes into a bundle: of which study, and what beside results, predictions and manifests.

    Args:
        study: Name of the study; None for all results of the folder.
        reports: Reports whose tables go in; none for that of methods, where it can be made.
        learned: Whether what was learned goes in.
        attributes: Whether that goes in which the datasets' tables say of images: age, sex, site, ….
    """

    study: str | None = None
    reports: Sequence[str] = ()
    learned: bool = False
    attributes: bool = False

    @property
    def kinds(self) -> tuple[str, ...]:
        """The files of a run that go in."""
        more = {"learned": self.learned, "attributes": self.attributes}
        return ("predictions", *(kind for kind, is_in in more.items() if is_in))


@dataclass(frozen=True)
class Packed:
    """What was packed.

    Args:
        file: The bundle.
        runs: Number of runs.
        size: Bytes of the bundle.
        reports: Reports whose tables are in it, each with why it has none, or nothing.
        left_out: What of the folder of results is not in it.
    """

    file: Path
    runs: int
    size: int
    reports: Mapping[str, str] = field(default_factory=dict)
    left_out: Sequence[str] = ()


def pack_study(output: Path, bundle: Path, options: PackOptions, catalog: Catalog, progress: Progress) -> Packed:
    """Pack the results of a study, or all of a folder, into one zip file, whole or not at all.

    Runs of full fine-tuning in the same settings go in with a study: what its PME refers to.

    Raises:
        InputError: When there is no such study, nothing to pack, or a report cannot be made of it.
        RunError: When something would go in that tells of this machine.
    """
    if bundle.suffix.lower() != ".zip":
        raise InputError(f"--to {bundle}: bundles are zip files", hint="end the name in .zip", kind="bad_setting")
    check_writable(bundle.parent, option="--to")
    results = load_results(output, options.study)
    runs = _with_references(results)
    if not runs:
        raise InputError(
            f"there is nothing to pack in {output}", hint="petlbench bench or run makes results", kind="no_results"
        )
    studies = read_studies(output, options.study)
    packer = _Packer(Scrubber.of(runs, studies.values(), output), options, catalog, progress)
    with tempfile.TemporaryDirectory(prefix="petlbench-pack-") as folder:
        staged = Bundle(bundle, Path(folder))
        packer.write(staged, output, runs, studies)
        reports = packer.describe(staged, runs, _left_out(output, options))
        packer.check(staged)
        _zip(staged.folder, bundle)
    return Packed(bundle, len(runs), bundle.stat().st_size, reports, staged.description.left_out)


def _with_references(results: Results) -> list[Stored]:
    runs = {run.run_id: run for run in results.runs}
    settings = {str(run.alike) for run in results.runs}
    runs |= {run.run_id: run for run in results.references if str(run.alike) in settings and run.run_id not in runs}
    return [run for run in runs.values() if run.folder is not None]


def _left_out(output: Path, options: PackOptions) -> list[str]:
    parts = {
        "what was learned (--learned)": not options.learned,
        "what tables say of images (--attributes)": not options.attributes,
        "trials of searches": (output / "trials").is_dir(),
        "unfinished states, journal and paths of images": True,
    }
    return [name for name, is_out in parts.items() if is_out]


@dataclass(frozen=True)
class _Packer:
    """What writes the files of a bundle into a folder."""

    scrubber: Scrubber
    options: PackOptions
    catalog: Catalog
    progress: Progress

    def write(
        self, staged: Bundle, output: Path, runs: Sequence[Stored], studies: Mapping[str, Mapping[str, Any]]
    ) -> None:
        """Write results, studies, audits of their datasets, and the log of test readings."""
        self.progress.phase("packing", len(runs))
        for run in runs:
            self._write_run(staged.results / run.run_id, run)
            self._write_manifest(staged, run)
            self.progress.advance()
        for name, document in studies.items():
            self._write_json(staged.results / "studies" / f"{name}.json", document)
        for name in sorted({run.dataset for run in runs}):
            audit = output / "audits" / f"{name.replace('/', '-')}.json"
            if audit.is_file():
                self._write_json(staged.results / "audits" / audit.name, read_json(audit, what="audit"))
        ids = {run.run_id for run in runs}
        reads = [{key: read[key] for key in _READ if key in read} for read in read_reads(output)]
        lines = [json.dumps(self.scrubber.value(read)) for read in reads if read["run_id"] in ids]
        (staged.results / READS_FILE).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")

    def describe(self, staged: Bundle, runs: Sequence[Stored], left_out: Sequence[str]) -> dict[str, str]:
        """Write tables, environment, commands, what the bundle is, and the sums of all files.

        Returns:
            The reports, each with why it has no table, or nothing.
        """
        environments = _distinct(self.scrubber.value(run.document.get("environment") or {}) for run in runs)
        self._write_json(staged.folder / "environment.json", {"environments": environments})
        packages = (environments[-1].get("packages") or {}).items()
        pins = [f"{name}=={version}" for name, version in packages if version]
        (staged.folder / "requirements.txt").write_text("".join(f"{pin}\n" for pin in pins), encoding="utf-8")
        commands = [self.scrubber.text(command) for command in commands_of(runs, self.catalog)]
        (staged.folder / "commands.sh").write_text("".join(f"{line}\n" for line in commands), encoding="utf-8")
        study = self.options.study
        description = {
            "schema": SCHEMA,
            "name": study or staged.file.stem,
            "study": study,
            "petlbench": petlbench.__version__,
        }
        self._write_json(staged.folder / DESCRIPTION, {**description, "reports": {}, "left_out": list(left_out)})
        reports = self._write_tables(staged)
        more = {"reports": reports, "left_out": list(left_out)}
        self._write_json(staged.folder / DESCRIPTION, {**description, **more})
        staged = Bundle(staged.file, staged.folder)
        readme = self.scrubber.text(readme_of(staged.description, staged.file.name, runs))
        (staged.folder / "README.md").write_text(readme, encoding="utf-8")
        sums = [f"{file_digest(file)}  {path}\n" for path, file in _files(staged.folder)]
        (staged.folder / SUMS).write_text("".join(sums), encoding="utf-8")
        return reports

    def check(self, staged: Bundle) -> None:
        """Look at all that would go in for what tells of this machine.

        Raises:
            RunError: When there is something.
        """
        for path, file in _files(staged.folder):
            if file.suffix == ".parquet":
                names = read_rows(file, ("image_id",))
                columns = [names[name].to_pylist() for name in _NAMES if name in names.column_names]
                private = next((text for column in columns for text in column if text and is_elsewhere(text)), "")
            else:
                text = read_bytes(file, limit=None).decode("utf-8", errors="replace")
                private = self.scrubber.private_part(text)
            if private:
                raise RunError(
                    f"{path} is not packed: it tells of this machine ('{private}')",
                    hint="leave that run out (--where of bench makes a study), or name its dataset by a card",
                    kind="not_clean",
                )

    def _write_run(self, folder: Path, run: Stored) -> None:
        folder.mkdir(parents=True)
        artifacts = run.document.get("artifacts") or {}
        kept = {kind: name for kind, name in artifacts.items() if kind in self.options.kinds}
        kept = {kind: name for kind, name in kept.items() if self._copy(run, folder, kind, name)}
        document = self.scrubber.value({**run.document, "artifacts": kept})
        content = _json(document)
        parse_result(content.encode(), f"the result of {run.run_id} as it would be packed")
        (folder / FILE).write_text(content, encoding="utf-8")
        for evaluation in read_evaluations(run.folder or Path()):
            (folder / EVALUATIONS).mkdir(exist_ok=True)
            self._write_json(folder / EVALUATIONS / f"{evaluation.name}.json", evaluation.document())
            for name in evaluation.artifacts.values():
                source = inside((run.folder or Path()) / EVALUATIONS, name, what=f"artifacts of {evaluation.name}")
                _copy_file(source, inside(folder / EVALUATIONS, name, what=f"artifacts of {evaluation.name}"))

    def _copy(self, run: Stored, folder: Path, kind: str, name: str) -> bool:
        """Copy a file of a run; False where it is not there."""
        source = inside(run.folder or Path(), name, what=f"artifacts.{kind} of {run.run_id}")
        target = inside(folder, name, what=f"artifacts.{kind} of {run.run_id}")
        if not source.exists():
            return False
        target.parent.mkdir(parents=True, exist_ok=True)
        _copy_file(source, target)
        return True

    def _write_manifest(self, staged: Bundle, run: Stored) -> None:
        """Write the manifest of a run, which others with the same split share."""
        name = (run.document.get("artifacts") or {}).get("manifest")
        file = staged.manifest(run.document["digests"])
        if name is None or file is None or file.exists():
            return
        source = inside(run.folder or Path(), name, what=f"artifacts.manifest of {run.run_id}")
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(pathless_manifest(source))

    def _write_tables(self, staged: Bundle) -> dict[str, str]:
        """Write the tables of the reports; of a report that nobody has named, why it cannot be made."""
        reports = {}
        for name in self.options.reports or (DEFAULT_REPORT,):
            try:
                document = make_report(staged, name, self.catalog, self.progress)
            except InputError as error:
                if self.options.reports:
                    raise
                reports[name] = self.scrubber.text(error.message)
                continue
            (staged.folder / TABLES).mkdir(exist_ok=True)
            for form in (JSON, MARKDOWN):
                file = staged.folder / TABLES / f"{name}{form.suffix}"
                file.write_text(form.text(document), encoding="utf-8")
            reports[name] = ""
        return reports

    def _write_json(self, file: Path, document: Mapping[str, Any]) -> None:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(_json(self.scrubber.value(document)), encoding="utf-8")


def _json(document: Any) -> str:
    return json.dumps(document, indent=1, allow_nan=False) + "\n"


def _distinct(values: Iterable[Any]) -> list[Any]:
    return list({json.dumps(value, sort_keys=True): value for value in values}.values())


def _copy_file(source: Path, target: Path) -> None:
    with open_file(source) as opened, target.open("xb") as copy:
        shutil.copyfileobj(opened, copy)


def _files(folder: Path) -> Iterator[tuple[str, Path]]:
    for file in sorted(folder.rglob("*")):
        if file.is_file():
            yield file.relative_to(folder).as_posix(), file


def _zip(folder: Path, bundle: Path) -> None:
    """Put a folder's files into a zip, of which equal files make equal bytes."""
    bundle.parent.mkdir(parents=True, exist_ok=True)
    with (
        write_atomically(bundle) as temporary,
        zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as package,
    ):
        for path, file in _files(folder):
            with file.open("rb") as opened, package.open(zipfile.ZipInfo(path), "w", force_zip64=True) as entry:
                shutil.copyfileobj(opened, entry)
