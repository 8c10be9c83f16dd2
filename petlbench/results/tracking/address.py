"""Where a store is: which addresses there are, and what an address says without being opened."""

from __future__ import annotations

import os
import re
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import unquote, urlsplit

from petlbench.core.errors import InputError
from petlbench.core.text import without_password

__all__ = ["check_address", "choose_address", "is_server", "network_place", "sqlite_file"]

_SCHEMES = ("databricks", "file", "http", "https", "mssql", "mysql", "postgresql", "sqlite")
_SERVERS = ("databricks", "http", "https")
_PORTS = {"postgresql": 5432, "mysql": 3306, "mssql": 1433}
_SQLITE = "sqlite:///"


def choose_address(uri: str | None, output: Path) -> str:
    """The store's address, or ``none``.

    Args:
        uri: What was asked for; ``None`` or empty takes the environment's ``MLFLOW_TRACKING_URI``, else the SQLite file
            ``mlflow.db`` in the output folder.
        output: The folder of all results.
    """
    return uri or os.environ.get("MLFLOW_TRACKING_URI") or f"{_SQLITE}{output.absolute() / 'mlflow.db'}"


def check_address(uri: str) -> None:
    """Check that MLflow knows this kind of address, without going there.

    Raises:
        InputError: When it knows none such (kind ``bad_tracking_uri``), or a PostgreSQL driver is missing
            (``missing_extra``).
    """
    scheme = _scheme(uri)
    plugins = {point.name for point in entry_points(group="mlflow.tracking_store")}
    if scheme not in _SCHEMES and scheme not in plugins:
        hint = "give http://HOST:PORT of a server, sqlite:////FOLDER/mlflow.db, or none"
        if re.match(r"^[\w.-]+:\d+(/|$)", uri):
            hint = f"did you mean http://{uri}?"
        message = f"tracking URI '{without_password(uri)}' is not one MLflow knows"
        raise InputError(message, hint=hint, kind="bad_tracking_uri")
    if scheme == "postgresql" and not any(find_spec(name) for name in ("psycopg", "psycopg2")):
        message = f"tracking URI '{without_password(uri)}' needs a driver for PostgreSQL, and none is installed"
        raise InputError(message, hint="install the extra: pip install 'petlbench[postgres]'", kind="missing_extra")


def is_server(uri: str) -> bool:
    """Whether an MLflow server stands there, which keeps artifacts itself, and no bare database."""
    return _scheme(uri) in _SERVERS


def network_place(uri: str) -> tuple[str, int] | None:
    """Host and port of a database on the network; None for files, sockets and servers."""
    port = _PORTS.get(_scheme(uri))
    parts = urlsplit(uri)
    if port is None or not parts.hostname:
        return None
    return parts.hostname, parts.port or port


def sqlite_file(uri: str) -> Path | None:
    """The file of an SQLite store; None for every other store."""
    if not uri.startswith("sqlite"):
        return None
    name = unquote(uri.partition(":///")[2].partition("?")[0])
    return Path(name) if name and name != ":memory:" else None


def _scheme(uri: str) -> str:
    return "databricks" if uri == "databricks" else urlsplit(uri).scheme.partition("+")[0]
