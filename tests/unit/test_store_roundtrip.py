"""A generation gives back what was written, and its store keeps order."""

import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from ruvector import limits
from ruvector.errors import InvalidParameter, LimitExceeded, StoreError
from ruvector.store import GenerationStore, open_generation, write_generation

META = {"position": "10:20:10,14", "options": {"dims": 3, "metric": "l2"}, "none": None}


def example_sections():
    rng = np.random.default_rng(1)
    return {
        "vectors": rng.standard_normal((5_000, 7)).astype(np.float32),
        "halves": rng.standard_normal((10, 3)).astype(np.float16),
        "keys": np.arange(-3, 3, dtype=np.int64),
        "bits": rng.integers(0, 255, (3, 2), dtype=np.uint8),
        "flags": np.array([True, False]),
        "none": np.empty((0, 7), np.float32),
        "single": np.array(5, np.uint64),
    }


@pytest.mark.parametrize("verify", [True, False])
def test_arrays_and_facts_come_back(tmp_path, verify):
    sections = example_sections()
    info = write_generation(tmp_path / "gen-000001", sections, meta=META)
    with open_generation(info.path, verify=verify) as generation:
        assert generation.id == info.id
        assert generation.meta == META
        assert generation.names == tuple(sections)
        for name, array in sections.items():
            found = generation.section(name)
            assert found.dtype == array.dtype
            assert found.shape == array.shape
            np.testing.assert_array_equal(found, array)
            assert found.ctypes.data % 64 == 0 or found.size == 0
    assert info.bytes == sum(file.stat().st_size for file in info.path.iterdir())


@settings(max_examples=40, deadline=None)
@given(
    array=hnp.arrays(
        dtype=st.sampled_from([np.int8, np.uint16, np.int32, np.float16, np.float32, np.float64, ">f4", ">i8"]),
        shape=hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=9),
    ),
    fortran=st.booleans(),
)
def test_any_numeric_array_comes_back(tmp_path_factory, array, fortran):
    stored = np.asfortranarray(array) if fortran and array.ndim else array
    path = tmp_path_factory.mktemp("any") / "gen-000001"
    write_generation(path, {"array": stored}, meta={})
    with open_generation(path) as generation:
        found = generation.section("array")
        assert found.dtype == array.dtype.newbyteorder("=")
        assert found.shape == array.shape
        np.testing.assert_array_equal(found, array)


FIRST_BLOCK = limits.STORE_BLOCK_BYTES - limits.STORE_HEADER_BYTES


@pytest.mark.parametrize("step", [-1, 0, 1])
@pytest.mark.parametrize("border", [limits.PAGE_BYTES, FIRST_BLOCK, 3 * limits.STORE_BLOCK_BYTES])
def test_sizes_around_page_and_block_borders(tmp_path, border, step):
    size = border + step
    array = np.random.default_rng(size).integers(0, 255, size, dtype=np.uint8)
    write_generation(tmp_path / "g", {"array": array}, meta={})
    with open_generation(tmp_path / "g") as generation:
        np.testing.assert_array_equal(generation.section("array"), array)


def test_strided_array_is_stored_densely(tmp_path):
    array = np.arange(100, dtype=np.int64)[::3]
    write_generation(tmp_path / "g", {"array": array}, meta={})
    with open_generation(tmp_path / "g") as generation:
        np.testing.assert_array_equal(generation.section("array"), array)


def test_writing_to_a_mapped_array_leaves_the_file(tmp_path):
    write_generation(tmp_path / "g", {"array": np.zeros(10, np.int32)}, meta={})
    with open_generation(tmp_path / "g") as generation:
        generation.section("array")[:] = 7
        assert generation.section("array").tolist() == [7] * 10
    with open_generation(tmp_path / "g") as generation:
        assert generation.section("array").tolist() == [0] * 10


def test_arrays_outlive_close_and_removal(tmp_path):
    store = GenerationStore(tmp_path / "store")
    path = write_generation(store.new_path(), {"array": np.arange(50_000)}, meta={}).path
    generation = open_generation(path)
    array = generation.section("array")
    generation.close()
    generation.close()
    store.remove(path)
    assert array.sum() == sum(range(50_000))
    with pytest.raises(StoreError, match="was closed"):
        generation.section("array")


def test_files_are_private(tmp_path):
    old = os.umask(0)
    try:
        path = write_generation(GenerationStore(tmp_path / "s").new_path(), example_sections(), meta={}).path
    finally:
        os.umask(old)
    for file in (path.parent, path, *path.iterdir()):
        assert file.stat().st_mode & 0o077 == 0, file


@pytest.mark.parametrize("array", [
    np.array([{}], dtype=object), np.array(["a"]), np.array([b"a"]), np.zeros(1, [("a", "i4")]),
    np.zeros(1, np.complex64), np.zeros(1, "M8[s]"), np.zeros(1, np.longdouble),
])  # fmt: skip
def test_only_numbers_are_stored(tmp_path, array):
    with pytest.raises(InvalidParameter, match="only plain numbers"):
        write_generation(tmp_path / "g", {"array": array}, meta={})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["", "A", "a/b", "../a", "a.b", "1a", "a" * 49, "ä", "a\n"])
def test_section_names_are_checked(tmp_path, name):
    with pytest.raises(InvalidParameter, match="section name"):
        write_generation(tmp_path / "g", {name: np.zeros(1)}, meta={})


@pytest.mark.parametrize("meta", [{"a": object()}, {"a": float("nan")}, {"a": b"bytes"}, {"a": {1, 2}}])
def test_facts_must_be_json(tmp_path, meta):
    with pytest.raises(InvalidParameter, match="JSON"):
        write_generation(tmp_path / "g", {}, meta=meta)


def test_limits_are_kept(tmp_path):
    with pytest.raises(LimitExceeded):
        write_generation(tmp_path / "g", {"a": np.zeros((1,) * (limits.SECTION_AXES_MAX + 1))}, meta={})
    with pytest.raises(LimitExceeded):
        write_generation(tmp_path / "g", {f"a{i}": np.zeros(1) for i in range(limits.SECTIONS_MAX + 1)}, meta={})
    with pytest.raises(LimitExceeded):
        write_generation(tmp_path / "g", {}, meta={"a": "x" * limits.MANIFEST_BYTES_MAX})


def test_finished_generation_is_never_replaced(tmp_path):
    write_generation(tmp_path / "g", {"a": np.zeros(1)}, meta={})
    with pytest.raises(StoreError, match="exists already"):
        write_generation(tmp_path / "g", {"a": np.ones(1)}, meta={})
    with open_generation(tmp_path / "g") as generation:
        assert generation.section("a").tolist() == [0.0]


def test_leftover_of_an_interrupted_write_is_replaced(tmp_path):
    (tmp_path / "g.partial").mkdir()
    (tmp_path / "g.partial" / "vectors.section").write_bytes(b"half")
    write_generation(tmp_path / "g", {"a": np.zeros(1)}, meta={})
    assert [entry.name for entry in tmp_path.iterdir()] == ["g"]


def test_full_disk_is_an_error_and_leaves_nothing(tmp_path):
    """A limit on the size of files stands in for a full disk: both come back from the allocation."""
    script = (
        "import resource, signal, sys, pathlib, numpy as np\n"
        "from ruvector.store import write_generation\n"
        "from ruvector.errors import StoreError\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))\n"
        "try:\n"
        "    write_generation(pathlib.Path(sys.argv[1]), {'small': np.zeros(9), 'a': np.zeros(1 << 20)}, meta={})\n"
        "except StoreError as error:\n"
        "    print(error)\n"
    )
    answer = subprocess.run([sys.executable, "-c", script, str(tmp_path / "g")], capture_output=True, text=True)
    assert answer.returncode == 0, answer.stderr
    assert "cannot be written" in answer.stdout
    assert list(tmp_path.iterdir()) == []


def test_store_numbers_and_lists_generations(tmp_path):
    store = GenerationStore(tmp_path / "deep" / "store")
    assert store.list() == []
    paths = [write_generation(store.new_path(), {"a": np.zeros(1)}, meta={}).path for _ in range(3)]
    assert [path.name for path in paths] == ["gen-000001", "gen-000002", "gen-000003"]
    assert store.list() == paths[::-1]
    store.remove(paths[1])
    store.remove(paths[1])
    assert store.list() == [paths[2], paths[0]]
    assert GenerationStore(store.root).new_path().name == "gen-000004"


def test_store_ignores_and_removes_leftovers(tmp_path):
    store = GenerationStore(tmp_path / "store")
    finished = write_generation(store.new_path(), {"a": np.zeros(1)}, meta={}).path
    for name in ("gen-000007.partial", "gen-000003.removed", "gen-000005", "notes"):
        (store.root / name).mkdir()
    assert store.list() == [finished]
    assert store.new_path().name == "gen-000008"
    store.remove_partial()
    store.remove_partial()
    assert sorted(path.name for path in store.root.iterdir()) == ["gen-000001", "gen-000005", "notes"]


def test_store_follows_no_link_when_it_removes(tmp_path):
    store = GenerationStore(tmp_path / "store")
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "file").write_text("keep")
    (store.root / "gen-000001").symlink_to(tmp_path / "precious")
    (store.root / "gen-000002.partial").symlink_to(tmp_path / "precious")
    store.remove(store.root / "gen-000001")
    store.remove_partial()
    assert (tmp_path / "precious" / "file").read_text() == "keep"
    assert list(store.root.iterdir()) == []


@pytest.mark.parametrize("name", ["../precious", "notes", "gen-1", "gen-000001.partial"])
def test_store_removes_generations_only(tmp_path, name):
    with pytest.raises(InvalidParameter):
        GenerationStore(tmp_path / "store").remove(tmp_path / "store" / name)


def test_store_refuses_unsafe_folders(tmp_path):
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    (tmp_path / "link").symlink_to(tmp_path / "open")
    (tmp_path / "file").write_text("")
    for name in ("open", "link", "file"):
        with pytest.raises(StoreError):
            GenerationStore(tmp_path / name)
