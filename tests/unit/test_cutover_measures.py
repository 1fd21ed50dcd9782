"""How two answers to one search compare."""

import numpy as np
import pytest

from ruvector.systems.cutover.measures import Answer, distance_error, pair_of, rank_correlation, recall


def answer(*rows, ms=1.0):
    return Answer([key for key, _ in rows], [far for _, far in rows], ms)


def test_equal_answers_agree_in_all():
    both = answer(("a", 1.0), ("b", 2.0), ("c", 3.0))
    pair = pair_of(both, both, None)
    assert (pair["overlap"], pair["rank_correlation"], pair["distance_error"]) == (1.0, 1.0, 0.0)
    assert (pair["truth"], pair["index_recall"], pair["pgvector_recall"]) == ("pooled", 1.0, 1.0)


def test_a_pooled_truth_tells_who_missed_and_an_exact_one_what_both_missed():
    index, pgvector = answer(("a", 1.0), ("c", 3.0)), answer(("a", 1.0), ("b", 2.0))
    pooled = pair_of(index, pgvector, None)
    assert (pooled["overlap"], pooled["index_recall"], pooled["pgvector_recall"]) == (0.5, 0.5, 1.0)
    assert pooled["distance_error"] == pytest.approx(1 / 3)
    exact = pair_of(index, pgvector, answer(("z", 0.5), ("a", 1.0)))
    assert (exact["truth"], exact["index_recall"], exact["pgvector_recall"]) == ("exact", 0.5, 0.5)


def test_equally_near_rows_count_whichever_came():
    assert recall([1.0, 2.0], [1.0, 2.0]) == 1.0
    pair = pair_of(answer(("a", 1.0), ("b", 2.0)), answer(("a", 1.0), ("c", 2.0)), None)
    assert (pair["overlap"], pair["index_recall"], pair["pgvector_recall"]) == (0.5, 1.0, 1.0)


def test_answers_without_rows_and_short_ones():
    empty, one = answer(), answer(("a", 0.0))
    assert pair_of(empty, empty, None)["index_recall"] == 1.0
    short = pair_of(empty, one, None)
    assert (short["overlap"], short["index_recall"], short["pgvector_recall"]) == (0.0, 0.0, 1.0)
    assert rank_correlation(["a"], ["a"]) is None
    assert distance_error([0.0], [0.0]) is None


def test_rank_correlation_is_that_of_ranks():
    rng = np.random.default_rng(1)
    for _ in range(20):
        first, second = rng.permutation(12), rng.permutation(15)
        common = [key for key in first if key in set(second)]
        places = [list(second).index(key) for key in common]
        expected = np.corrcoef(np.arange(len(common)), np.argsort(np.argsort(places)))[0, 1]
        found = rank_correlation(list(map(str, first)), list(map(str, second)))
        assert found == pytest.approx(expected)
