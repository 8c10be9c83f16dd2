"""A report as one HTML page that needs no other file and no network: tables to sort, plots to explore, every run."""

from __future__ import annotations

from petlbench.report.render.html.page import render

__all__ = ["render"]
