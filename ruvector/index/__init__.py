"""Hold keyed vectors in memory and answer nearest-neighbour searches: by a graph, or exactly by scan or inverted lists.

Takes: keys and vectors from the mirror or a program, in the order they are to be applied.
Gives: keys and distances in pgvector's signs, fewer than asked only when there are no more; flat arrays for the store.
"""

from ruvector.index.attributes import chosen_rows
from ruvector.index.checks import rows_differ, usable_rows
from ruvector.index.facade import Index
from ruvector.index.keyed import KeyedIndex
from ruvector.index.opening import unread_sections
from ruvector.index.options import options_from_json, options_to_json
from ruvector.index.protocol import BuildProgress, Keys, Plan, Sieve, VectorIndex, Vectors

__all__ = [
    "BuildProgress",
    "Index",
    "KeyedIndex",
    "Keys",
    "Plan",
    "Sieve",
    "VectorIndex",
    "Vectors",
    "chosen_rows",
    "options_from_json",
    "options_to_json",
    "rows_differ",
    "unread_sections",
    "usable_rows",
]
