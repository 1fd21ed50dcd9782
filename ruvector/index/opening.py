"""Open a saved index at once: what is large stays where it is mapped and is verified while it is used."""

from __future__ import annotations

import atexit
import mmap
import threading
import weakref
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from ruvector import kernels, limits
from ruvector.errors import StoreDamaged, StoreError, ensure
from ruvector.index.protocol import MappedEngine
from ruvector.store import PageProof
from ruvector.values import IndexKind

# Nearly all bytes of an index, none of which a search reads in order; everything else is read and verified at open.
UNREAD = ("rows", "links", "codes", "fingerprints", "keys")


def unread_sections(meta: Mapping[str, object]) -> tuple[str, ...]:
    """Return the sections that need not be read at open, for an index whose manifest says this about it."""
    options = meta.get("options")
    kind = options.get("kind") if isinstance(options, dict) else None
    mapped = kernels.IS_COMPILED and kind in (IndexKind.HNSW, IndexKind.FLAT)  # others copy everything
    return UNREAD if mapped else ()


_running: weakref.WeakSet[Verification] = weakref.WeakSet()


class Verification:
    """Verify the pages of an engine on a thread of its own; a writer waits for it before it changes anything.

    The searches of the engine verify what they touch until this has ended.
    """

    def __init__(self, engine: MappedEngine, proofs: Mapping[str, PageProof]) -> None:
        """Take over the descriptors of the proofs and begin."""
        self._engine = engine
        self._proofs = proofs
        self._damage = ""
        self._is_stopped = threading.Event()
        self._has_ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="ruvector-verify", daemon=True)
        _running.add(self)
        self._thread.start()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until all is verified; False when it is not yet.

        Raises:
            StoreDamaged: a page is not as it was written, or links or keys do not fit together.
        """
        if not self._thread.is_alive() and not self._has_ended.is_set():
            self._run()  # the process was forked, and the thread stayed behind
        if not self._has_ended.wait(timeout):
            return False
        if self._damage:
            raise StoreDamaged(self._damage)
        ensure(self._engine.is_verified, "the verification of an index ended before all was verified")
        return True

    def stop(self) -> None:
        """Let it end soon: the index is not used any more."""
        self._is_stopped.set()

    def join(self) -> None:
        """Wait until its thread has ended."""
        self._thread.join()

    def _run(self) -> None:
        try:
            while not self._is_stopped.is_set() and self._engine.check_next():
                pass
        except StoreError as error:
            self._damage = error.message
        finally:
            for proof in self._proofs.values():
                proof.close()
            self._has_ended.set()


class ResidentBound:
    """Keep the resident part of an engine's files below a bound, by giving back rows that nobody wrote.

    They are read again, from the system's cache of files or from disk, when a search asks for them. Links and codes
    stay: a bound below them is not kept. Without /proc this does nothing, and the system alone decides what stays.
    """

    def __init__(self, engine: MappedEngine, bytes_max: int) -> None:
        """Start with nothing given back."""
        self._engine = engine
        self._bytes_max = bytes_max
        self._floor = 0  # what was resident after rows were given back: links, codes, programs
        self._searches = 0

    def check(self) -> None:
        """Look once in a while, after a search."""
        self._searches += 1
        if self._searches % limits.RESIDENT_CHECK_SEARCHES:
            return
        if _resident_file_bytes() > max(self._bytes_max, self._floor + limits.RESIDENT_SLACK_BYTES):
            self._engine.evict()
            self._floor = _resident_file_bytes()


def _resident_file_bytes() -> int:
    """Return how many bytes of mapped files this process holds in memory; 0 where the system does not tell."""
    try:
        return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[2]) * mmap.PAGESIZE
    except OSError:
        return 0


def resident_row_bytes(engine: MappedEngine, row_bytes: int) -> int:
    """Return how many bytes of the rows this process holds in memory: all, but for rows in mapped files."""
    address, size = engine.row_place()
    first, pages = address // mmap.PAGESIZE, -(-size // mmap.PAGESIZE)
    if not pages:
        return row_bytes
    try:
        with Path("/proc/self/pagemap").open("rb", buffering=0) as pagemap:
            pagemap.seek(first * 8)
            entries = np.frombuffer(pagemap.read(pages * 8), dtype=np.uint64)
    except OSError:
        return row_bytes
    return int(np.count_nonzero(entries >> np.uint64(63))) * mmap.PAGESIZE  # the highest bit: the page is present


def _stop_all() -> None:
    """End the threads before the interpreter goes away under them."""
    for verification in list(_running):
        verification.stop()
        verification.join()


atexit.register(_stop_all)
