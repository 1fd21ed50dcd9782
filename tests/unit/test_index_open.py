"""A saved index answers at once, never from a damaged page, and every page is verified in the end."""

import gc
import os
import shutil
import subprocess
import sys
import threading

import numpy as np
import pytest
from index_cases import vectors

from ruvector import kernels, limits
from ruvector.errors import InvalidParameter, StoreDamaged, StoreError, StoreFormat
from ruvector.index import Index, KeyedIndex
from ruvector.index.keyed import new_engine
from ruvector.index.keys import TextKeys
from ruvector.index.opening import UNREAD
from ruvector.store import open_generation, write_generation

compiled_only = pytest.mark.skipif(not kernels.IS_COMPILED, reason="the numpy engine reads everything at open")

ROWS = 1500 if kernels.IS_COMPILED else 150  # enough for codes; a search walks and touches a part of them
DIMS, EF = 32, 12
QUERIES = vectors(12, DIMS, seed=9)


def small_index(**more):
    """An index with codes, upper levels, deleted rows, free slots and twins."""
    index = Index(DIMS, m=6, ef_construction=40, threads=1, **more)
    rows = vectors(ROWS, DIMS)
    rows[70:80] = rows[70]
    index.add(range(ROWS), rows)
    index.delete(range(0, 60, 2))
    return index


@pytest.fixture(scope="module")
def pristine(tmp_path_factory):
    path = tmp_path_factory.mktemp("open") / "saved"
    small_index().save(path)
    return path


@pytest.fixture(scope="module")
def right(pristine):
    """What the undamaged index answers."""
    return answers(Index.open(pristine, verify="full"))


@pytest.fixture
def saved(pristine, tmp_path):
    return shutil.copytree(pristine, tmp_path / "saved")


def answers(index):
    return [tuple(part.tolist() for part in index.search(query, 5, ef=EF)) for query in QUERIES]


def open_and_ask(path, right):
    index = Index.open(path)
    assert answers(index) == right
    index.verified()


class Unverified:
    """An engine opened unread that nobody verifies behind its back."""

    def __init__(self, path):
        self.generation = open_generation(path, unread=lambda meta: UNREAD)
        index = Index(DIMS, m=6, ef_construction=40)
        self.engine = new_engine(index.options)
        sections = {name: self.generation.section(name) for name in self.generation.names}
        wrong = self.engine.restore(sections, in_place=True, threads=1, proofs=self.generation.proofs)
        assert wrong is None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.generation.close()

    def search(self, query, k=5, *, scan_rows=0):
        data = np.ascontiguousarray(query[np.newaxis]).view(np.uint8)
        keys, distances, _ = self.engine.search(data, k=k, ef=EF, scan_rows=scan_rows, threads=1)
        return keys[0].tolist(), distances[0].tolist()

    def ask(self):
        """The answers up to the first that is refused, and why it is."""
        found = []
        try:
            for query in QUERIES:
                found.append(self.search(query))
        except StoreDamaged as error:
            return found, error.message
        return found, ""

    def verify(self):
        while self.engine.check_next():
            pass


def flip(file, position):
    with open(file, "r+b") as handle:
        handle.seek(position)
        byte = handle.read(1)[0]
        handle.seek(position)
        handle.write(bytes([byte ^ 0x10]))


def pages(path, name):
    """Some byte of every page of a file."""
    size = (path / name).stat().st_size
    starts = range(0, size, limits.PAGE_BYTES)
    return [min(start + (37 * at) % limits.PAGE_BYTES, size - 1) for at, start in enumerate(starts)]


@compiled_only
def test_unverified_graph_answers_as_the_verified_one(pristine, right):
    with Unverified(pristine) as opened:
        assert [opened.search(query) for query in QUERIES] == right
        assert not opened.engine.is_verified
        opened.verify()
        assert opened.engine.is_verified
        assert [opened.search(query) for query in QUERIES] == right


@compiled_only
@pytest.mark.parametrize("name", UNREAD)
def test_no_answer_comes_from_a_damaged_page(saved, right, name):
    raised = 0
    for page, position in enumerate(pages(saved, f"{name}.section")[1:], start=1):
        flip(saved / f"{name}.section", position)
        with Unverified(saved) as opened:
            found, problem = opened.ask()
            assert found == right[: len(found)]
            assert bool(problem) == (len(found) < len(right))
            raised += bool(problem)
            assert not problem or f'page {page} of "{name}.section"' in problem
            with pytest.raises(StoreDamaged, match=f'page {page} of "{name}.section" has a wrong checksum'):
                opened.verify()
            with pytest.raises(StoreDamaged):
                opened.search(QUERIES[0])
            assert not opened.engine.is_verified
        flip(saved / f"{name}.section", position)
    assert raised > 2 or name == "fingerprints"  # which only writers need


@compiled_only
def test_scan_and_lookup_verify_rows(saved):
    key = 1001
    with Unverified(saved) as opened:
        wanted = opened.engine.rows_of(np.array([key]))[0]
        exact = opened.search(QUERIES[0], scan_rows=10**6)
    for position in pages(saved, "rows.section")[1:]:
        flip(saved / "rows.section", position)
        with Unverified(saved) as opened, pytest.raises(StoreDamaged, match=r"rows\.section"):
            opened.search(QUERIES[0], scan_rows=10**6)
        with Unverified(saved) as opened:
            try:
                assert (opened.engine.rows_of(np.array([key]))[0] == wanted).all()
            except StoreDamaged:
                assert opened.engine.rows_of  # it was the page of this row
        flip(saved / "rows.section", position)
    with Unverified(saved) as opened:
        assert opened.search(QUERIES[0], scan_rows=10**6) == exact


def test_every_damaged_page_is_found(saved, right):
    files = sorted(file.name for file in saved.iterdir())
    assert len(files) > 10
    for name in files:
        for position in pages(saved, name):
            flip(saved / name, position)
            with pytest.raises(StoreError):
                Index.open(saved, verify="full")
            with pytest.raises(StoreError):
                open_and_ask(saved, right)
            flip(saved / name, position)
    index = Index.open(saved)
    assert answers(index) == right
    assert index.verified()


@compiled_only
def test_damage_ends_everything_that_needs_the_data(saved, tmp_path):
    flip(saved / "rows.section", pages(saved, "rows.section")[-1])
    index = Index.open(saved)
    with pytest.raises(StoreDamaged, match=r"rows\.section"):
        index.verified()
    for use in (
        lambda: index.search(QUERIES[0], 5),
        lambda: index.add([1], vectors(1, DIMS)),
        lambda: index.delete([1]),
        lambda: index.build(),
        lambda: index.save(tmp_path / "copy"),
        lambda: 1 in index,
    ):
        with pytest.raises(StoreDamaged, match=r"rows\.section"):
            use()
    assert not (tmp_path / "copy").exists()
    with pytest.raises(StoreDamaged, match=r"rows\.section"):
        Index.open(saved, verify="full")


@compiled_only
def test_file_that_became_shorter_is_found_by_the_verification(saved):
    with Unverified(saved) as opened:
        os.truncate(saved / "rows.section", limits.PAGE_BYTES)
        with pytest.raises(StoreDamaged, match="became shorter"):
            opened.verify()


def forged(tmp_path, damage):
    """A saved index with wrong sections and right checksums."""
    small_index().save(tmp_path / "whole")
    with open_generation(tmp_path / "whole") as generation:
        sections = {name: generation.section(name).copy() for name in generation.names}
        damage(sections)
        write_generation(tmp_path / "forged", sections, meta=generation.meta)
    return tmp_path / "forged"


def _nodes(sections):
    return np.flatnonzero((sections["states"] == 1) | (sections["states"] == 2))


def _all_links_far_away(sections):
    sections["links"][:, 0] = 0xFFFFFFF0


def _all_links_just_outside(sections):
    sections["links"][_nodes(sections), 0] = len(sections["states"])


def _one_link_outside(sections):
    sections["links"][_nodes(sections)[-1], 0] = len(sections["states"])


def _links_to_no_node(sections):
    sections["links"][:, 1] = np.flatnonzero(sections["states"] == 3)[0]


@compiled_only
@pytest.mark.parametrize("damage", [
    _all_links_far_away, _all_links_just_outside, _one_link_outside, _links_to_no_node,
])  # fmt: skip
def test_links_to_nowhere_are_not_followed(tmp_path, damage):
    path = forged(tmp_path, damage)
    with Unverified(path) as opened:
        _, problem = opened.ask()
        assert not problem or "links.section" in problem
        with pytest.raises(StoreDamaged, match=r'page \d+ of "links.section" holds a link that leads to no node'):
            opened.verify()
    with pytest.raises(StoreDamaged, match=r"links\.section"):
        Index.open(path, verify="full")


@compiled_only
@pytest.mark.parametrize("value", [0xFFFFFFF0, ROWS, "lower"])
def test_upper_links_to_nowhere_are_not_followed(tmp_path, value):
    def damage(sections):
        lower = np.flatnonzero((sections["levels"] == 0) & (sections["states"] == 1))[0]
        sections["upper"][:] = lower if value == "lower" else value

    path = forged(tmp_path, damage)
    with Unverified(path) as opened:
        with pytest.raises(StoreDamaged, match=r"upper\.section"):
            opened.search(QUERIES[0])
        with pytest.raises(StoreDamaged, match=r"upper\.section"):
            opened.verify()


@compiled_only
def test_rows_are_given_back_and_read_again(pristine, right, tmp_path):
    index = Index.open(pristine)
    index.verified()
    assert answers(index) == right
    engine = index._index._engine
    rows = index.stats()["row_bytes"]
    assert 0 < index.stats()["resident_row_bytes"] <= rows + 2 * limits.PAGE_BYTES
    index.warm(rows=True)
    engine.evict()
    assert index.stats()["resident_row_bytes"] < rows // 8 or not os.path.exists("/proc/self/pagemap")
    assert answers(index) == right
    changed = vectors(300, DIMS, seed=8)
    assert index.add(range(300, 600), changed) == 300  # some of them into slots of mapped pages
    assert index.add(range(20), changed[:20] + 1) == 20
    before = answers(index)
    engine.evict()
    assert answers(index) == before
    assert (index._index.vectors_of(range(300, 600))[0] == changed).all()
    index.save(tmp_path / "again")
    assert answers(Index.open(tmp_path / "again")) == before


@compiled_only
def test_memory_bound_evicts_after_searches(pristine, right, monkeypatch):
    index = Index.open(pristine, warm=True, resident_bytes=1)
    monkeypatch.setattr(limits, "RESIDENT_SLACK_BYTES", 0)
    for _ in range(3):
        assert answers(index) == right
    assert index.verified()
    assert answers(index) == right


def test_rows_of_an_index_in_memory_are_never_given_back():
    index = small_index()
    before = answers(index)
    copied = KeyedIndex.from_sections(index.options, index._index.sections(), in_place=True)
    for one in (index._index, copied):
        one._engine.evict()
        assert one.warm(rows=True) >= 0
        assert one.stats()["resident_row_bytes"] > 0
    assert answers(index) == before
    assert [copied.search(query, 5, ef=EF)[0].tolist() for query in QUERIES] == [keys for keys, _ in before]


@compiled_only
def test_key_that_occurs_twice_is_found(tmp_path):
    def damage(sections):
        live = np.flatnonzero(sections["states"] == 1)
        sections["keys"][live[0]] = sections["keys"][live[1]]

    path = forged(tmp_path, damage)
    with Unverified(path) as opened, pytest.raises(StoreDamaged, match=r'"keys.section" holds a key twice'):
        opened.verify()
    with Unverified(path) as opened, pytest.raises(StoreDamaged, match=r'"keys.section" holds a key twice'):
        opened.engine.contains(np.array([5]))


def test_index_without_codes_opens(tmp_path):
    def damage(sections):
        sections["codes"], sections["center"] = sections["codes"][:0], sections["center"][:0]

    path = forged(tmp_path, damage)
    assert answers(Index.open(path)) == answers(Index.open(path, verify="full"))
    flip(path / "rows.section", pages(path, "rows.section")[5])
    with pytest.raises(StoreDamaged, match=r"rows\.section"):  # codes are made of the rows
        Index.open(path)


@pytest.mark.parametrize("verify", ["lazy", "full"])
def test_opened_index_changes_and_is_saved_again(tmp_path, pristine, verify):
    kept, opened = small_index(), Index.open(pristine, verify=verify, threads=1)
    more = vectors(ROWS // 2, DIMS, seed=5)
    for index in (kept, opened):
        assert index.add(range(ROWS // 4, ROWS // 4 + ROWS // 2), more) == ROWS // 2
        assert index.delete(range(60, ROWS // 2)) == ROWS // 2 - 60
        assert index.add(range(5000, 5000 + ROWS // 2), more + 1) == ROWS // 2
    opened.save(tmp_path / "again")
    again = Index.open(tmp_path / "again", verify=verify)
    assert answers(kept) == answers(opened) == answers(again)
    assert len(kept) == len(opened) == len(again)
    assert again.verified(60)
    assert answers(Index.open(pristine)) != answers(again)  # the first files are as they were


def test_deferred_rows_are_found_after_opening(tmp_path):
    index = small_index()
    more = vectors(70, DIMS, seed=4)
    index.add(range(9000, 9070), more, defer=True)
    index.save(tmp_path / "saved")
    opened = Index.open(tmp_path / "saved")
    assert opened.stats()["loose"] == index.stats()["loose"]
    for at in range(0, 70, 7):
        assert opened.search(more[at], 1, ef=EF)[0].tolist() == [9000 + at]
    opened.build()
    assert opened.stats()["loose"] == 0


@pytest.mark.parametrize("kind", ["hnsw", "flat"])
@pytest.mark.parametrize("texts", [False, True])
def test_kinds_and_keys_open(tmp_path, kind, texts):
    index = Index(DIMS, "cosine", kind=kind, dtype="f16")
    keys = [f"key {at}" for at in range(ROWS)] if texts else list(range(ROWS))
    index.add(keys, vectors(ROWS, DIMS))
    index.save(tmp_path / "saved")
    opened = Index.open(tmp_path / "saved")
    assert answers(opened) == answers(index)
    assert keys[3] in opened
    assert opened.delete(keys[:3]) == 3
    assert keys[0] not in opened


def test_restored_texts_are_named_before_they_are_looked_up():
    texts = ["b", "", "é", "日本", "a"]
    kept = TextKeys()
    numbers = kept.for_write(texts)
    sections = kept.sections(numbers[[3, 0, 4, 2, 1]])
    restored = TextKeys()
    restored.restore(sections)
    assert restored.names(numbers) == texts
    assert restored.names(numbers[:0]) == []
    assert restored.names(np.array([5])) is None
    assert restored.knows_all(numbers)
    assert not restored.knows_all(np.array([1, 5]))
    assert restored.for_read(["é", "c", ""]).tolist() == [2, -1, 1]
    assert restored.for_write(["new", "a"]).tolist() == [5, 4]
    assert restored.names(np.array([5, 3])) == ["new", "日本"]
    empty = TextKeys()
    empty.restore(TextKeys().sections(numbers[:0]))
    assert empty.names(numbers) is None
    sections["text_ends"] = sections["text_ends"] - np.array([1, 0, 0, 0, 0])  # inside the last character of a text
    with pytest.raises(StoreFormat, match="UTF-8"):
        TextKeys().restore(sections)
    twice = kept.sections(numbers[[0, 0]])
    with pytest.raises(StoreFormat, match="twice"):
        TextKeys().restore(twice)


def test_searches_go_on_while_pages_are_verified(pristine, right):
    wrong = []

    def ask(index):
        for _ in range(20):
            if answers(index) != right:
                wrong.append(index)

    for _ in range(5):
        index = Index.open(pristine)
        threads = [threading.Thread(target=ask, args=(index,)) for _ in range(3)]
        for thread in threads:
            thread.start()
        assert index.delete([12345678]) == 0
        assert index.verified(60)
        for thread in threads:
            thread.join()
    assert not wrong


def test_verify_is_checked(pristine):
    with pytest.raises(InvalidParameter, match="verify"):
        Index.open(pristine, verify="never")
    with pytest.raises(InvalidParameter, match="resident_bytes"):
        Index.open(pristine, resident_bytes=0)
    assert Index(3).verified()


@pytest.mark.skipif(not os.path.isdir("/dev/fd"), reason="descriptors cannot be counted here")
def test_nothing_stays_behind(pristine):
    def count():
        gc.collect()
        for thread in threading.enumerate():
            if thread.name == "ruvector-verify":
                thread.join()
        return len(os.listdir("/dev/fd")), threading.active_count()

    before = count()
    for _ in range(5):
        Index.open(pristine)
    assert count() == before


def test_program_may_end_while_pages_are_verified(pristine):
    script = "import sys, ruvector; index = ruvector.Index.open(sys.argv[1]); print(len(index))"
    answer = subprocess.run([sys.executable, "-c", script, str(pristine)], capture_output=True, text=True)
    assert (answer.returncode, answer.stderr) == (0, "")
    assert int(answer.stdout) == ROWS - 30
