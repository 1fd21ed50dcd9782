"""Say how far a first copy is."""

from __future__ import annotations


def progress_text(rows_copied: int, rows_total: int, rows_per_second: float | None, eta_seconds: float | None) -> str:
    """Return rows, rate and time left; the total is left out while it is not known to be more than what is copied."""
    text = f"{rows_copied:,} of {rows_total:,} rows" if rows_total > rows_copied else f"{rows_copied:,} rows"
    if rows_per_second:
        text += f", {rows_per_second:,.0f} rows/s"
    if eta_seconds and rows_total > rows_copied:
        text += f", {eta_seconds:,.0f} s left"
    return text
