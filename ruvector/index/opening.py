"""Open a saved index at once: what is large stays where it is mapped and is verified while it is used."""

from __future__ import annotations

import atexit
import threading
import weakref
from collections.abc import Mapping

from ruvector.errors import StoreDamaged, StoreError, ensure
from ruvector.index.protocol import Engine
from ruvector.store import PageProof

# Nearly all bytes of an index; everything else is read and verified at open.
UNREAD = ("rows", "links", "codes")
_running: weakref.WeakSet[Verification] = weakref.WeakSet()


class Verification:
    """Verify the pages of an engine on a thread of its own; a writer waits for it before it changes anything.

    The searches of the engine verify what they touch until this has ended.
    """

    def __init__(self, engine: Engine, proofs: Mapping[str, PageProof]) -> None:
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


def _stop_all() -> None:
    """End the threads before the interpreter goes away under them."""
    for verification in list(_running):
        verification.stop()
        verification.join()


atexit.register(_stop_all)
