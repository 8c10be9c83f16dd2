"""Studies as files to hand on: packed, verified, and put side by side."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from petlbench.core.catalog import Folder, Folders, catalog_of
from petlbench.core.progress_bars import shown_progress
from petlbench.core.user_files import user_path

if TYPE_CHECKING:
    from petlbench.report.bundle.pack import Packed
    from petlbench.report.bundle.verify import Verification
    from petlbench.report.formats import Document


def pack(
    study: str | None = None,
    to: Folder = "bundle.zip",
    *,
    results: Folder = "results",
    reports: Iterable[str] = (),
    learned: bool = False,
    attributes: bool = False,
    catalog: Folders = (),
    progress: bool = False,
) -> Packed:
    """What was packed: a study's results, predictions, manifests, tables and commands, as one file to hand on.

    Passwords, paths of this machine, and what tables say of images are left out.

    Args:
        study: Name of the study; None for all results of the folder.
        to: The bundle, a zip file.
        results: Folder of all results.
        reports: Reports whose tables go in; none for that of methods, where it can be made.
        learned: Whether the learned tensors go in.
        attributes: Whether what the datasets' tables say of images goes in: age, sex, site, ….
        catalog: Folders with reports, metrics, … of your own.
        progress: Whether a bar shows what goes on.

    Raises:
        InputError: When there is no such study or report, or nothing to pack.
        RunError: When something would go in that tells of this machine.
    """
    from petlbench.report.bundle.pack import PackOptions, pack_study

    options = PackOptions(study, tuple(reports), learned, attributes)
    output, bundle = user_path(results, what="--output"), user_path(to, what="--to")
    with shown_progress(progress) as shown:
        return pack_study(output, bundle, options, catalog_of(catalog), shown)


def board(*places: Folder, metric: str | None = None, catalog: Folders = (), progress: bool = False) -> Document:
    """Many studies side by side: a table each dataset and setting, with ranks and what cannot be told apart.

    What no table may mix stands in tables of its own. ``.save("board.html")`` writes a page that is filtered by
    dataset, backbone and protocol.

    Args:
        places: Folders of results, bundles of `pack`, and folders of either.
        metric: Name of the score; None for the AUC.
        catalog: Folders with methods, metrics, … of your own.
        progress: Whether a bar shows what goes on.

    Raises:
        InputError: When a place is no such thing, or no finished run has that score.
    """
    from petlbench.report.board import build_board

    paths = [user_path(place, what="DIR|BUNDLE") for place in places]
    with shown_progress(progress) as shown:
        return build_board(paths, metric, catalog_of(catalog), shown)


def verify_pack(bundle: Folder, *, catalog: Folders = (), progress: bool = False) -> Verification:
    """What of a bundle differs from what its predictions say: ``.differences``, none where ``.is_whole``.

    Every score, interval, calibration error and table cell is computed again.

    Args:
        bundle: What `pack` has written.
        catalog: Folders with metrics, tasks, … of your own that it needs.
        progress: Whether a bar shows what goes on.

    Raises:
        InputError: When it is no bundle, or unsafe to unpack.
    """
    from petlbench.report.bundle.verify import verify_bundle

    file: Path = user_path(bundle, what="BUNDLE")
    with shown_progress(progress) as shown:
        return verify_bundle(file, catalog_of(catalog), shown)
