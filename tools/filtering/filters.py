"""A filter in the three forms that engines take: a mapping, a condition of SQL with its values, a mask of rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

Columns: TypeAlias = Mapping[str, npt.NDArray[Any]]
Mask: TypeAlias = "npt.NDArray[np.bool_]"


@dataclass(frozen=True, slots=True)
class Between:
    """Numbers from ``low`` on and below ``high``, where given."""

    column: str
    low: int | None = None
    high: int | None = None

    def mapping(self) -> dict[str, Any]:
        """Return the entry of ruvector's filter."""
        bounds = {"$gte": self.low, "$lt": self.high}
        return {self.column: {operator: bound for operator, bound in bounds.items() if bound is not None}}

    def sql(self) -> tuple[str, list[Any]]:
        """Return the condition and its values."""
        bounds = [(f"{self.column} >= %s", self.low), (f"{self.column} < %s", self.high)]
        given = [(text, bound) for text, bound in bounds if bound is not None]
        return " AND ".join(text for text, _ in given), [bound for _, bound in given]

    def mask(self, columns: Columns) -> Mask:
        """Tell which rows pass."""
        values = columns[self.column]
        passing = np.ones(values.shape, dtype=np.bool_)
        if self.low is not None:
            passing &= values >= self.low
        if self.high is not None:
            passing &= values < self.high
        return passing


@dataclass(frozen=True, slots=True)
class Among:
    """One of some values, all numbers or all texts."""

    column: str
    values: tuple[int, ...] | tuple[str, ...]

    def mapping(self) -> dict[str, Any]:
        """Return the entry of ruvector's filter."""
        return {self.column: self.values[0] if len(self.values) == 1 else list(self.values)}

    def sql(self) -> tuple[str, list[Any]]:
        """Return the condition and its values."""
        if len(self.values) == 1:
            return f"{self.column} = %s", [self.values[0]]
        kind = "text" if isinstance(self.values[0], str) else "int4"
        return f"{self.column} = ANY (%s::{kind}[])", [list(self.values)]

    def mask(self, columns: Columns) -> Mask:
        """Tell which rows pass."""
        return np.isin(columns[self.column], np.asarray(self.values))


@dataclass(frozen=True, slots=True)
class Filter:
    """Conditions on different columns that must all hold."""

    conditions: tuple[Between | Among, ...]

    def mapping(self) -> dict[str, Any]:
        """Return ruvector's filter."""
        merged: dict[str, Any] = {}
        for condition in self.conditions:
            merged |= condition.mapping()
        return merged

    def sql(self) -> tuple[str, list[Any]]:
        """Return the condition for WHERE and its values."""
        parts = [condition.sql() for condition in self.conditions]
        return " AND ".join(text for text, _ in parts), [value for _, values in parts for value in values]

    def mask(self, columns: Columns) -> Mask:
        """Tell which rows pass; columns may be cut to some rows."""
        passing, *others = (condition.mask(columns) for condition in self.conditions)
        for other in others:
            passing = passing & other
        return passing
