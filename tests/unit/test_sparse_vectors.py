import numpy as np
import pytest
from sparse_cases import csr, dense, packed, sparse_table

from ruvector import SparseVectors, limits
from ruvector.errors import DimensionMismatch, InvalidParameter, InvalidText, InvalidVector


def make(indptr, indices, values, dims=10):
    return SparseVectors(indptr, indices, values, dims)


def test_rows_are_copies_that_do_not_change():
    values = np.array([1, 2], dtype=np.float32)
    rows = make([0, 2], [1, 3], values)
    values[:] = 9
    assert rows.values.tolist() == [1, 2]
    for array in (rows.indptr, rows.indices, rows.values):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 0
    with pytest.raises(AttributeError):
        rows.dims = 5


def test_zero_elements_are_left_out():
    rows = make([0, 3, 3, 5], [0, 4, 9, 1, 2], [1, 0, 2, -0.0, 0])
    assert (rows.indptr.tolist(), rows.indices.tolist()) == ([0, 2, 2, 2], [0, 9])
    assert rows.values.tolist() == [1, 2]


@pytest.mark.parametrize(
    ("parts", "error", "message"),
    [
        (([0, 2], [3, 1], [1, 1]), InvalidVector, "the indices of vector 0 do not ascend"),
        (([0, 1, 3], [3, 1, 1], [1, 1, 1]), InvalidVector, "the indices of vector 1 do not ascend"),
        (([0, 1, 1, 2], [3, 10], [1, 1]), InvalidVector, "vector 2 has an index outside 0 to 9"),
        (([0, 1], [-1], [1]), InvalidVector, "vector 0 has an index outside"),
        (([0, 1], [0], [np.nan]), InvalidVector, "vector 0 holds NaN or infinity"),
        (([0, 1, 2], [0, 0], [1, -np.inf]), InvalidVector, "vector 1 holds NaN or infinity"),
        (([0, 1], [0], [1e39]), InvalidVector, "vector 0 holds NaN or infinity"),
        (([0, 1], [0, 1], [1, 1]), InvalidParameter, "indptr ends at 1"),
        (([0, 2], [0, 1], [1]), InvalidParameter, "2 indices and 1 values"),
        (([1, 2], [0, 1], [1, 1]), InvalidParameter, "begin with 0"),
        (([0, 2, 1, 2], [0, 1], [1, 1]), InvalidParameter, "never fall"),
        (([], [], []), InvalidParameter, "begin with 0"),
        (([0, 1], [0.5], [1]), InvalidParameter, "indices must be numbers"),
        (([0.0, 1.0], [0], [1]), InvalidParameter, "indptr must be numbers"),
        (([0, 1], [0], ["a"]), InvalidParameter, "values must be numbers"),
        (([0, 1], [[0]], [1]), InvalidParameter, "indices must be numbers in one axis"),
        (([0, 1], [0], [[1], [1, 2]]), InvalidParameter, "values do not form an array"),
        (([0, 1], [0], [1], 0), InvalidParameter, "dims is 0"),
        (([0, 1], [0], [1], 1_000_000_001), InvalidParameter, "dims is 1000000001"),
        (([0, 1], [0], [1], 2.0), InvalidParameter, "dims must be a whole number"),
    ],
)
def test_arrays_that_are_no_rows_are_refused(parts, error, message):
    with pytest.raises(error, match=message):
        make(*parts)


def test_bounds_are_those_of_pgvector():
    most = limits.SPARSE_ELEMENTS_MAX
    rows = make([0, most], np.arange(most), np.ones(most), limits.SPARSE_DIMS_MAX)
    assert rows.lengths.tolist() == [16_000]
    with pytest.raises(InvalidVector, match="vector 0 has 16001 elements"):
        make([0, most + 1], np.arange(most + 1), np.ones(most + 1), 20_000)
    assert make([0, 1], [999_999_999], [1], limits.SPARSE_DIMS_MAX).texts() == ["{1000000000:1.0}/1000000000"]


@pytest.mark.parametrize(
    ("text", "indices", "values", "dims"),
    [
        ("{1:0.5,3:2}/5", [0, 2], [0.5, 2], 5),
        ("{}/7", [], [], 7),
        (" { 2 : -1e-3 , 1 : .5 } / 3 ", [0, 1], [0.5, -1e-3], 3),
        ("{1:0,2:3.}/2", [1], [3], 2),
        ("{1000000000:1}/1000000000", [999_999_999], [1], 1_000_000_000),
    ],
)
def test_text_of_pgvector_is_read(text, indices, values, dims):
    rows = SparseVectors.from_texts([text])
    assert (rows.indices.tolist(), rows.dims, len(rows)) == (indices, dims, 1)
    assert rows.values.tolist() == np.float32(values).tolist()


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("[1,2]", InvalidText),
        ("{1:2}", InvalidText),
        ("{1:2/3", InvalidText),
        ("{1:2,}/3", InvalidText),
        ("{1}/3", InvalidText),
        ("{1:2}/3x", InvalidText),
        ("{1:0x10}/3", InvalidText),
        ("{1:1_0}/3", InvalidText),
        ("{1.5:1}/3", InvalidText),
        ("", InvalidText),
        (None, InvalidText),
        ("{0:1}/3", InvalidVector),
        ("{-1:1}/3", InvalidVector),
        ("{4:1}/3", InvalidVector),
        ("{1:1,1:2}/3", InvalidVector),
        ("{1:nan}/3", InvalidVector),
        ("{1:-Infinity}/3", InvalidVector),
        ("{1:1e39}/3", InvalidVector),
        ("{}/0", InvalidParameter),
        ("{}/1000000001", InvalidParameter),
        ("{" + ",".join(f"{at}:1" for at in range(1, 16_002)) + "}/20000", InvalidVector),
    ],
)
def test_other_text_is_refused_shortly(text, error):
    with pytest.raises(error) as caught:
        SparseVectors.from_texts([text])
    assert len(caught.value.message) < 200
    assert caught.value.hint


def test_texts_of_several_widths_are_refused():
    with pytest.raises(DimensionMismatch, match="has 4 dimensions, the collection has 3"):
        SparseVectors.from_texts(["{1:1}/3", "{1:1}/4"])
    with pytest.raises(DimensionMismatch):
        SparseVectors.from_texts(["{1:1}/3"], dims=4)
    assert len(SparseVectors.from_texts([], dims=4)) == 0
    with pytest.raises(InvalidParameter):
        SparseVectors.from_texts([])


def test_texts_come_back():
    rows = packed(sparse_table(40, 30))
    again = SparseVectors.from_texts(rows.texts())
    assert not rows.differ(again).any()
    assert (dense(again) == dense(rows)).all()


def test_rows_are_selected_like_those_of_an_array():
    table = sparse_table(30, 20)
    table[[3, 7]] = 0
    rows = packed(table)
    for selected in (table.any(axis=1), slice(5, 9), np.array([4, 3, 4]), np.zeros(30, dtype=bool), slice(0, 0)):
        assert (dense(rows[selected]) == table[selected]).all()
        assert rows[selected].dims == 20


def test_rows_that_differ_are_told():
    table = sparse_table(8, 12)
    other = table.copy()
    other[1] = 0
    other[3, 5] += 1
    other[6] = np.roll(other[6], 1)
    assert packed(table).differ(packed(other)).tolist() == (table != other).any(axis=1).tolist()
    with pytest.raises(InvalidParameter):
        packed(table).differ(packed(table[:3]))


def test_csr_matrices_are_taken_and_others_refused():
    rows = packed(sparse_table(5, 9))
    assert not SparseVectors.of(csr(rows), dims=9).differ(rows).any()
    with pytest.raises(DimensionMismatch):
        SparseVectors.of(csr(rows), dims=10)
    columns = csr(rows)
    columns.format = "csc"
    short = csr(rows)
    short.shape = (4, 9)
    for wrong in (columns, short, np.zeros((2, 9)), [[1, 2]], "{1:1}/9", None):
        with pytest.raises(InvalidParameter):
            SparseVectors.of(wrong, dims=9)
