import numpy as np
import pytest
from index_cases import flat, hnsw, options

from ruvector.errors import DimensionMismatch, InvalidParameter, InvalidVector
from ruvector.index import Index, KeyedIndex, usable_rows
from ruvector.values import ElementType, KeyKind, Metric

MAKERS = [flat, hnsw]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e39])
@pytest.mark.parametrize("make", MAKERS)
def test_values_that_are_no_numbers_are_refused(make, bad):
    index = make(3)
    with pytest.raises(InvalidVector, match="vector 1"):
        index.upsert([1, 2], [[1.0, 2.0, 3.0], [4.0, bad, 6.0]])
    with pytest.raises(InvalidVector):
        index.search([1.0, bad, 1.0], 1)
    assert len(index) == 0


def test_f16_overflow_is_refused():
    with pytest.raises(InvalidVector):
        hnsw(1, element=ElementType.F16).upsert([1], [[70_000.0]])


@pytest.mark.parametrize("make", MAKERS)
def test_zero_vector_is_refused_under_cosine_only(make):
    with pytest.raises(InvalidVector, match="vector 1 is all zeros"):
        make(2, Metric.COSINE).upsert([1, 2], [[1, 0], [0, 0]])
    with pytest.raises(InvalidVector, match="all zeros"):
        make(2, Metric.COSINE).search([0, 0], 1)
    assert make(2).upsert([1], [[0, 0]]) == 1


def test_f16_row_that_rounds_to_zero_is_refused_under_cosine():
    with pytest.raises(InvalidVector, match="all zeros"):
        hnsw(2, Metric.COSINE, element=ElementType.F16).upsert([1], [[1e-12, 0]])


def test_usable_rows_tells_what_would_be_refused():
    rows = np.array([[1, 2], [0, 0], [np.nan, 1], [np.inf, 1]], dtype=np.float32)
    assert usable_rows(rows, metric=Metric.COSINE).tolist() == [True, False, False, False]
    assert usable_rows(rows, metric=Metric.L2).tolist() == [True, True, False, False]


@pytest.mark.parametrize("vectors", [[[1, 2]], [[1, 2, 3, 4]]])
@pytest.mark.parametrize("make", MAKERS)
def test_other_dimensions_are_refused(make, vectors):
    with pytest.raises(DimensionMismatch):
        make(3).upsert([1], vectors)
    with pytest.raises(DimensionMismatch):
        make(3).search(vectors[0], 1)


@pytest.mark.parametrize(
    ("keys", "vectors", "error"),
    [
        ([1, 2], [[1, 2, 3]], InvalidParameter),
        ([1], [1, 2, 3], InvalidParameter),
        ([1, 2], [[1, 2, 3], [4, 5]], InvalidVector),
        ([1], [["a", "b", "c"]], InvalidVector),
        ([1], [[None, 1, 2]], InvalidVector),
        ([1.5], [[1, 2, 3]], InvalidParameter),
        (["a"], [[1, 2, 3]], InvalidParameter),
        ([2**63], [[1, 2, 3]], InvalidParameter),
        (7, [[1, 2, 3]], InvalidParameter),
    ],
)
def test_rows_that_make_no_sense_are_refused(keys, vectors, error):
    index = hnsw(3)
    with pytest.raises(error):
        index.upsert(keys, vectors)
    assert len(index) == 0


def test_text_index_refuses_other_keys():
    index = hnsw(1, key_kind=KeyKind.TEXT)
    for keys in ([1], [b"a"], [None], ["a", 2]):
        with pytest.raises(InvalidParameter):
            index.upsert(keys, np.ones((len(keys), 1)))
    assert len(index) == 0


@pytest.mark.parametrize("k", [0, -1, 10_000_000, 1.5, True, "3", None])
@pytest.mark.parametrize("make", MAKERS)
def test_k_outside_its_range_is_refused(make, k):
    with pytest.raises(InvalidParameter):
        make(2).search([1, 2], k)


@pytest.mark.parametrize("ef", [0, -5, 10_000_000, 2.5])
def test_ef_outside_its_range_is_refused(ef):
    with pytest.raises(InvalidParameter):
        hnsw(2).search([1, 2], 1, ef=ef)


@pytest.mark.parametrize(
    "wrong",
    [
        {"dims": 0},
        {"dims": -3},
        {"dims": 16_001},
        {"dims": "3"},
        {"m": 1},
        {"m": 129},
        {"ef_construction": 0},
        {"ef_construction": 1_000_000},
        {"ef_search": 0},
        {"seed": -1},
        {"metric": "l2"},
        {"metric": Metric.HAMMING},
        {"element": ElementType.BIT},
        {"key_kind": "int64"},
    ],
)
def test_options_outside_their_range_are_refused(wrong):
    given = {"dims": 3, "metric": Metric.COSINE} | wrong
    if wrong in ({"metric": "l2"}, {"key_kind": "int64"}):
        given |= dict.fromkeys(wrong, "nonsense")
    with pytest.raises(InvalidParameter):
        KeyedIndex(options(**given))


@pytest.mark.parametrize("threads", [-1, 100_000, 1.0])
def test_threads_outside_their_range_are_refused(threads):
    with pytest.raises(InvalidParameter):
        KeyedIndex(options(), threads=threads)


def test_bits_past_the_end_are_refused():
    index = hnsw(12, Metric.HAMMING, element=ElementType.BIT)
    with pytest.raises(InvalidVector, match="past bit 12"):
        index.upsert([1], np.array([[0, 1]], dtype=np.uint8))
    with pytest.raises(InvalidVector, match="uint8"):
        index.upsert([1], [[0, 16]])
    with pytest.raises(DimensionMismatch):
        index.search(np.zeros(1, dtype=np.uint8), 1)
    assert index.upsert([1], np.array([[255, 240]], dtype=np.uint8)) == 1


def test_facade_names_what_it_does_not_know():
    for wrong in ({"metric": "euclid"}, {"kind": "tree"}, {"dtype": "f64"}):
        with pytest.raises(InvalidParameter, match=next(iter(wrong.values()))):
            Index(**({"dims": 3, "metric": "l2"} | wrong))
    index = Index(3)
    for k in (0, -1, 10_001):
        with pytest.raises(InvalidParameter):
            index.search([1, 2, 3], k)
    with pytest.raises(InvalidParameter):
        index.search(5.0, 1)
