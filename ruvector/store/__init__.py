"""Keep arrays in immutable generations on disk: checked before use, mapped privately, replaced as a whole.

Takes: named numpy arrays and a few facts about them.  Gives: the same arrays, or a refusal that names file and reason.
"""

from ruvector.store.generations import GenerationStore
from ruvector.store.layout import GenerationInfo
from ruvector.store.reader import Generation, PageProof, open_generation, read_all
from ruvector.store.writer import write_generation

__all__ = [
    "Generation",
    "GenerationInfo",
    "GenerationStore",
    "PageProof",
    "open_generation",
    "read_all",
    "write_generation",
]
