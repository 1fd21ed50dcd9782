"""The columns that filters read: one array per attribute, indexed by the tags of the rows.

Every column can tell for each row whether a comparison with a value is true, as SQL has it: with NULL it never is.
Where a column cannot know (texts in another order than that of their characters, numerics beyond a float64) it says
that it may be true: a filter built on it never loses a row, and is said not to be exact.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from ruvector.errors import StoreDamaged, StoreFormat
from ruvector.index import scalars
from ruvector.index.protocol import Sections
from ruvector.index.scalars import Unreadable
from ruvector.values import Attribute, AttributeValues

Mask = npt.NDArray[np.bool_]
Places = "npt.NDArray[np.int64] | slice"
COMPARISONS = ("=", "<>", "<", "<=", ">", ">=")


class Column(Protocol):
    """One attribute of all rows, by tag."""

    attribute: Attribute
    is_list: bool

    def resize(self, size: int) -> None:
        """Make room for tags below ``size``; new rows are NULL."""
        ...

    def write(self, tags: npt.NDArray[np.int64], given: AttributeValues) -> None:
        """Set the values of some rows."""
        ...

    def value(self, value: object) -> Any:
        """Return a value as ``write`` takes it; raises Unreadable."""
        ...

    def read(self, value: object) -> Any:
        """Return a value as the column compares it; raises Unreadable."""
        ...

    def compare(self, operator: str, operand: Any, at: Any) -> tuple[Mask, bool]:
        """Tell for the rows ``at`` (tags or a slice) whether they compare so, and whether that is certain."""
        ...

    def is_among(self, operands: Sequence[Any], at: Any, *, negated: bool) -> tuple[Mask, bool]:
        """Tell for the rows whether they are one of the operands (negated: none of them), and whether it is certain."""
        ...

    def is_present(self, at: Any) -> Mask:
        """Tell for the rows whether they are not NULL."""
        ...

    def sections(self) -> Sections:
        """Return the column as arrays."""
        ...

    def restore(self, sections: Sections, size: int) -> None:
        """Become what ``sections`` returned; raises StoreFormat when the arrays do not fit together."""
        ...

    @property
    def nbytes(self) -> int:
        """Return about how much memory it takes."""
        ...


class _Values:
    """Values of one width and whether they are there."""

    is_list = False

    def __init__(self, attribute: Attribute, dtype: npt.DTypeLike) -> None:
        self.attribute = attribute
        self._values: npt.NDArray[Any] = np.zeros(0, dtype=dtype)
        self._present: Mask = np.zeros(0, dtype=np.bool_)

    def resize(self, size: int) -> None:
        """Make room for tags below ``size``; new rows are NULL."""
        if size > len(self._present):
            capacity = max(size, len(self._present) * 5 // 4)
            self._values = _grown(self._values, capacity)
            self._present = _grown(self._present, capacity)

    def is_present(self, at: Any) -> Mask:
        """Tell for the rows whether they are not NULL."""
        mask: Mask = self._present[at]
        return mask

    def sections(self) -> Sections:
        """Return the column as arrays."""
        values = self._values.view(np.uint8).reshape(-1, 16) if self._values.dtype.kind == "S" else self._values
        return {"values": values, "present": self._present.view(np.uint8)}

    def restore(self, sections: Sections, size: int) -> None:
        """Become what ``sections`` returned; raises StoreFormat when the arrays do not fit together."""
        values, present = sections["values"], sections["present"]
        if self._values.dtype.kind == "S" and values.dtype == np.uint8 and values.shape[1:] == (16,):
            values = np.ascontiguousarray(values).reshape(-1).view("S16")
        if values.dtype != self._values.dtype or present.dtype != np.uint8 or not values.shape == present.shape:
            raise StoreFormat(f'the values of attribute "{self.attribute.name}" are of another kind')
        if values.ndim != 1 or len(values) < size or (present > 1).any():
            raise StoreFormat(f'values of attribute "{self.attribute.name}" are missing')
        self._values, self._present = np.array(values), np.array(present).view(np.bool_)

    @property
    def nbytes(self) -> int:
        """Return about how much memory it takes."""
        return self._values.nbytes + self._present.nbytes


class OrderedColumn(_Values):
    """Numbers, times and uuids: an order-preserving code for each value.

    ``is_rounded``: several values have one code (numeric as float64), so equal codes may be different values.
    """

    def __init__(
        self,
        attribute: Attribute,
        dtype: npt.DTypeLike,
        *,
        encode: Callable[[npt.NDArray[Any]], npt.NDArray[Any]],
        read: Callable[[object], Any],
        is_rounded: bool = False,
    ) -> None:
        """Start without rows."""
        super().__init__(attribute, dtype)
        self._encode, self._read, self._is_rounded = encode, read, is_rounded

    def write(self, tags: npt.NDArray[np.int64], given: AttributeValues) -> None:
        """Set the values of some rows."""
        self._values[tags] = self._encode(np.asarray(given.values))
        self._present[tags] = given.present

    def value(self, value: object) -> Any:
        """Return a value as ``write`` takes it; raises Unreadable."""
        return self._read(value)

    def read(self, value: object) -> Any:
        """Return the code of a value; raises Unreadable."""
        return self._encode(np.array([self._read(value)]))[0]

    def compare(self, operator: str, operand: Any, at: Any) -> tuple[Mask, bool]:
        """Tell for the rows whether they compare so, and whether that is certain."""
        values, present = self._values[at], self._present[at]
        if self._is_rounded:
            if operator == "<>":
                return present.copy(), False
            operator = {"<": "<=", ">": ">="}.get(operator, operator)
        return _compared(values, operator, operand) & present, not self._is_rounded

    def is_among(self, operands: Sequence[Any], at: Any, *, negated: bool) -> tuple[Mask, bool]:
        """Tell for the rows whether they are one of the operands (negated: none), and whether it is certain."""
        values, present = self._values[at], self._present[at]
        if negated and self._is_rounded:
            return present.copy(), False
        found = np.isin(values, np.array(operands, dtype=self._values.dtype), invert=negated)
        return found & present, not self._is_rounded


class _Coded(_Values):
    """Values that are each stored once, in a dictionary, and of each row its number there.

    A dictionary that was restored is read when it is first needed: an index of millions of texts opens at once.
    """

    _part: str  # the name of the dictionary's section

    def __init__(self, attribute: Attribute) -> None:
        super().__init__(attribute, np.int32)
        self._saved: tuple[npt.NDArray[np.uint8], int] | None = None  # as it was restored, and how many it has

    def _content(self) -> Sequence[Any]:
        raise NotImplementedError

    def _take(self, content: list[Any]) -> bool:
        """Become a dictionary with this content; False when it is none."""
        raise NotImplementedError

    def _load(self) -> None:
        if self._saved is None:
            return
        section, count = self._saved
        try:
            content = json.loads(section.tobytes())
        except ValueError:
            content = None
        if not isinstance(content, list) or len(content) != count or not self._take(content):
            raise StoreDamaged(f'the {self._part} of attribute "{self.attribute.name}" cannot be read')
        self._saved = None

    def sections(self) -> Sections:
        """Return the column as arrays."""
        if self._saved is None:
            content = self._content()
            section, count = _json_section(content), len(content)
        else:
            section, count = self._saved
        return super().sections() | {self._part: section, f"{self._part}_count": np.array([count], dtype=np.int64)}

    def restore(self, sections: Sections, size: int) -> None:
        """Become what ``sections`` returned; raises StoreFormat when the arrays do not fit together."""
        super().restore(sections, size)
        section, count = sections[self._part], sections[f"{self._part}_count"]
        if section.dtype != np.uint8 or section.ndim != 1 or count.dtype != np.int64 or count.shape != (1,):
            raise StoreFormat(f'the {self._part} of attribute "{self.attribute.name}" are of another kind')
        self._saved = np.array(section), int(count[0])
        used = self._values[self._present]
        if len(used) and not (used.min() >= 0 and used.max() < self._saved[1]):
            raise StoreFormat(f'a value of attribute "{self.attribute.name}" is not in its dictionary')


class TextColumn(_Coded):
    """Texts, each stored once; ``pads`` leaves out blanks at the end, as character(n) does."""

    _part = "texts"

    def __init__(self, attribute: Attribute, *, pads: bool = False) -> None:
        """Start without rows."""
        super().__init__(attribute)
        self._pads = pads
        self._texts: list[str] = []
        self._codes: dict[str, int] = {}

    def _content(self) -> Sequence[Any]:
        return self._texts

    def _take(self, content: list[Any]) -> bool:
        self._texts, self._codes = content, {text: code for code, text in enumerate(content)}
        return all(isinstance(text, str) for text in content)

    def write(self, tags: npt.NDArray[np.int64], given: AttributeValues) -> None:
        """Set the values of some rows."""
        self._load()
        self._values[tags] = [
            self._code(text) if is_there else 0
            for text, is_there in zip(given.values, given.present.tolist(), strict=True)
        ]
        self._present[tags] = given.present
        if len(self._texts) > 1024 and len(self._texts) > 2 * int(self._present.sum()):
            self._forget_unused()

    def _code(self, text: str) -> int:
        text = text.rstrip(" ") if self._pads else text
        code = self._codes.get(text)
        if code is None:
            code = self._codes[text] = len(self._texts)
            self._texts.append(text)
        return code

    def _forget_unused(self) -> None:
        used, places = np.unique(self._values[self._present], return_inverse=True)
        self._values[self._present] = places
        self._texts = [self._texts[code] for code in used.tolist()]
        self._codes = {text: code for code, text in enumerate(self._texts)}

    def value(self, value: object) -> Any:
        """Return a text; raises Unreadable."""
        return self.read(value)

    def read(self, value: object) -> Any:
        """Return a text as it is compared; raises Unreadable."""
        if not isinstance(value, str):
            raise Unreadable("a text")
        return value.rstrip(" ") if self._pads else value

    def compare(self, operator: str, operand: Any, at: Any) -> tuple[Mask, bool]:
        """Tell for the rows whether they compare so, and whether that is certain."""
        if operator in ("=", "<>"):
            return self.is_among([operand], at, negated=operator == "<>")
        present = self._present[at]
        if not (self.attribute.is_ordered and self.attribute.is_bytewise):
            return present.copy(), False
        self._load()
        table = _compared(np.array(self._texts, dtype=object), operator, operand).astype(np.bool_)
        return self._looked_up(table, at) & present, True

    def is_among(self, operands: Sequence[Any], at: Any, *, negated: bool) -> tuple[Mask, bool]:
        """Tell for the rows whether they are one of the operands (negated: none), and whether it is certain."""
        present = self._present[at]
        if not self.attribute.is_bytewise:
            return present.copy(), False
        self._load()
        codes = [code for code in map(self._codes.get, operands) if code is not None]
        if len(codes) <= 1:
            values = self._values[at]
            found = values == codes[0] if codes else np.zeros(len(values), dtype=np.bool_)
        else:
            table = np.zeros(len(self._texts), dtype=np.bool_)
            table[codes] = True
            found = self._looked_up(table, at)
        return (~found if negated else found) & present, True

    def _looked_up(self, table: Mask, at: Any) -> Mask:
        return table[self._values[at]] if len(table) else np.zeros(len(self._values[at]), dtype=np.bool_)

    @property
    def nbytes(self) -> int:
        """Return about how much memory it takes."""
        if self._saved is not None:
            return super().nbytes + self._saved[0].nbytes
        return super().nbytes + sum(60 + len(text) for text in self._texts[:1000]) * max(1, len(self._texts) // 1000)


class ListColumn(_Coded):
    """Arrays of texts or whole numbers, each stored once; what is asked is which elements they hold."""

    is_list = True
    _part = "lists"

    def __init__(self, attribute: Attribute, *, read_element: Callable[[object], Any]) -> None:
        """Start without rows."""
        super().__init__(attribute)
        self._read = read_element
        self._lists: list[tuple[Any, ...]] = []
        self._codes: dict[tuple[Any, ...], int] = {}
        self._holders: dict[Any, list[int]] = {}  # codes of the lists that hold an element

    def write(self, tags: npt.NDArray[np.int64], given: AttributeValues) -> None:
        """Set the values of some rows."""
        self._load()
        self._values[tags] = [
            self._code(tuple(each)) if is_there else 0
            for each, is_there in zip(given.values, given.present.tolist(), strict=True)
        ]
        self._present[tags] = given.present
        if len(self._lists) > 1024 and len(self._lists) > 2 * int(self._present.sum()):
            used, places = np.unique(self._values[self._present], return_inverse=True)
            self._values[self._present] = places
            self._take([self._lists[code] for code in used.tolist()])

    def _code(self, elements: tuple[Any, ...]) -> int:
        code = self._codes.get(elements)
        if code is None:
            code = self._codes[elements] = len(self._lists)
            self._lists.append(elements)
            for element in set(elements):
                self._holders.setdefault(element, []).append(code)
        return code

    def _content(self) -> Sequence[Any]:
        return self._lists

    def _take(self, content: list[Any]) -> bool:
        self._lists, self._codes, self._holders = [], {}, {}
        for elements in content:
            if not isinstance(elements, (list, tuple)):
                return False
            self._code(tuple(elements))
        return True

    def value(self, value: object) -> Any:
        """Return an element; raises Unreadable."""
        return self._read(value)

    def read(self, value: object) -> Any:
        """Return an element as it is compared; raises Unreadable."""
        return self._read(value)

    def compare(self, operator: str, operand: Any, at: Any) -> tuple[Mask, bool]:
        """Tell for the rows whether the operand is an element (``=``), or none (``<>``); the latter with NULL never."""
        found, is_exact = self.is_among([operand], at, negated=False)
        if operator == "=" or not is_exact:
            return found, is_exact
        return ~(found | self._holding([None], at)) & self._present[at], True

    def is_among(self, operands: Sequence[Any], at: Any, *, negated: bool) -> tuple[Mask, bool]:
        """Tell for the rows whether an operand is among their elements (negated: none is)."""
        present = self._present[at]
        if not self.attribute.is_bytewise:
            return present.copy(), False
        found = self._holding(operands, at)
        return (~found if negated else found) & present, True

    def _holding(self, elements: Iterable[Any], at: Any) -> Mask:
        self._load()
        table = np.zeros(len(self._lists) + 1, dtype=np.bool_)
        for element in elements:
            table[self._holders.get(element, [])] = True
        mask: Mask = table[self._values[at]]
        return mask

    @property
    def nbytes(self) -> int:
        """Return about how much memory it takes."""
        return super().nbytes + (200 * len(self._lists) if self._saved is None else self._saved[0].nbytes)


def new_column(attribute: Attribute) -> Column | None:
    """Return an empty column for an attribute; None for a type that filters do not know."""
    kind = attribute.type
    if kind == "boolean":
        return OrderedColumn(attribute, np.int8, encode=lambda values: values.astype(np.int8), read=scalars.read_bool)
    if kind in scalars.INTEGERS:
        dtype = scalars.INTEGERS[kind]
        return OrderedColumn(
            attribute, dtype, encode=lambda values: values.astype(dtype), read=scalars.integer_reader(dtype)
        )
    if kind == "real":
        return OrderedColumn(attribute, np.int32, encode=scalars.real_codes, read=scalars.read_float)
    if kind in ("double precision", "numeric"):
        return OrderedColumn(
            attribute, np.int64, encode=scalars.double_codes, read=scalars.read_float, is_rounded=kind == "numeric"
        )
    if kind == "date":
        return OrderedColumn(attribute, np.int32, encode=scalars.day_codes, read=scalars.read_date)
    if kind.startswith("timestamp"):
        return OrderedColumn(attribute, np.int64, encode=lambda values: values.astype(np.int64), read=scalars.read_time)
    if kind == "uuid":
        return OrderedColumn(attribute, "S16", encode=lambda values: values.astype("S16"), read=scalars.read_uuid)
    if kind in ("text", "character varying", "name", "bpchar", "character"):
        return TextColumn(attribute, pads=kind in ("bpchar", "character"))
    if kind in ("text[]", "character varying[]"):
        return ListColumn(attribute, read_element=scalars.read_text)
    if kind in ("integer[]", "bigint[]", "smallint[]"):
        return ListColumn(attribute, read_element=scalars.integer_reader(scalars.INTEGERS[kind.removesuffix("[]")]))
    return None


def _compared(values: npt.NDArray[Any], operator: str, operand: Any) -> Mask:
    if operator == "=":
        return np.asarray(values == operand)
    if operator == "<>":
        return np.asarray(values != operand)
    if operator == "<":
        return np.asarray(values < operand)
    if operator == "<=":
        return np.asarray(values <= operand)
    return np.asarray(values > operand) if operator == ">" else np.asarray(values >= operand)


# ---- arrays ----------------------------------------------------------------------------------------------------------


def _grown(array: npt.NDArray[Any], size: int) -> npt.NDArray[Any]:
    larger = np.zeros(size, dtype=array.dtype)
    larger[: len(array)] = array
    return larger


def _json_section(content: Sequence[Any]) -> npt.NDArray[np.uint8]:
    return np.frombuffer(json.dumps(content).encode(), dtype=np.uint8)
