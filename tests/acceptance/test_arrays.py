"""Array functions compute in the database what numpy computes, and refuse what pgvector refuses."""

import numpy as np
import psycopg
import pytest

DIMS = (1, 2, 7, 8, 9, 768)
BINARY = {
    "l2_distance_arr": lambda a, b: np.sqrt(((a - b) ** 2).sum()),
    "l1_distance_arr": lambda a, b: np.abs(a - b).sum(),
    "inner_product_arr": lambda a, b: a @ b,
    "neg_inner_product_arr": lambda a, b: -(a @ b),
    "cosine_distance_arr": lambda a, b: 1 - a @ b / np.sqrt((a @ a) * (b @ b)),
    "cosine_similarity_arr": lambda a, b: a @ b / np.sqrt((a @ a) * (b @ b)),
    "cosine_distance_normalized_arr": lambda a, b: 1 - a @ b,
    "vector_add": lambda a, b: a + b,
    "vector_sub": lambda a, b: a - b,
    "vector_avg2": lambda a, b: (a + b) / 2,
    "temporal_delta": lambda a, b: a - b,
    "temporal_undelta": lambda a, b: a + b,
}
UNARY = {
    "vector_dims": len,
    "vector_norm": np.linalg.norm,
    "vector_normalize": lambda a: a / np.linalg.norm(a),
}
SCALED = {
    "vector_mul_scalar(%s::real[], 2.5)": lambda a, b: a * 2.5,
    "temporal_ema_update(%s::real[], %s::real[], alpha => 0.25)": lambda a, b: 0.25 * a + 0.75 * b,
    "temporal_ema_update(%s::real[], %s::real[], alpha => 1)": lambda a, b: a,
    "temporal_drift(%s::real[], %s::real[], time_delta => 4)": lambda a, b: np.linalg.norm(a - b) / 4,
    "temporal_velocity(%s::real[], %s::real[], dt => 0.5)": lambda a, b: (b - a) / 0.5,
}
WRAPPERS = {
    "ruvector_l2_distance": "l2_distance_arr",
    "ruvector_cosine_distance": "cosine_distance_arr",
    "ruvector_inner_product": "inner_product_arr",
    "ruvector_l1_distance": "l1_distance_arr",
    "ruvector_add": "vector_add",
    "ruvector_sub": "vector_sub",
}


@pytest.fixture(scope="module")
def connection(shared_database):
    with shared_database.connect() as connection:
        yield connection


def pair(dims):
    random = np.random.default_rng(dims)
    return random.standard_normal((2, dims)).astype(np.float32)


def ask(connection, call, *values):
    return connection.execute(f"SELECT {call}", [np.asarray(value).tolist() for value in values]).fetchone()[0]


@pytest.mark.parametrize("dims", DIMS)
@pytest.mark.parametrize("name", sorted(BINARY))
def test_function_of_two_arrays(connection, name, dims):
    left, right = pair(dims)
    found = ask(connection, f"ruvector.{name}(%s::real[], %s::real[])", left, right)
    expected = BINARY[name](left.astype(np.float64), right.astype(np.float64))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("dims", DIMS)
@pytest.mark.parametrize("name", sorted(UNARY))
def test_function_of_one_array(connection, name, dims):
    array = pair(dims)[0]
    found = ask(connection, f"ruvector.{name}(%s::real[])", array)
    np.testing.assert_allclose(found, UNARY[name](array), rtol=1e-5)


@pytest.mark.parametrize("dims", DIMS)
@pytest.mark.parametrize("call", sorted(SCALED))
def test_function_with_a_number(connection, call, dims):
    pair_of = pair(dims)
    found = ask(connection, f"ruvector.{call}", *pair_of[: call.count("%s")])
    np.testing.assert_allclose(found, SCALED[call](*pair_of.astype(np.float64)), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dims", DIMS)
def test_binary_code_has_the_first_element_in_the_lowest_bit(connection, dims):
    array = pair(dims)[0]
    array[0] = 0
    found = ask(connection, "ruvector.binary_quantize_arr(%s::real[])", array)
    assert found == np.packbits(array > 0, bitorder="little").tobytes()


@pytest.mark.parametrize("dims", DIMS)
def test_scalar_code_restores_every_element_to_half_a_step(connection, dims):
    array = pair(dims)[0].astype(np.float64)
    code = ask(connection, "ruvector.scalar_quantize_arr(%s::real[])", array)
    assert len(code["data"]) == dims
    assert all(0 <= value <= 255 for value in code["data"])
    restored = np.array(code["data"]) * code["scale"] + code["offset"]
    assert np.abs(restored - array).max() <= code["scale"] / 2 + 1e-6


def test_scalar_code_of_equal_elements(connection):
    code = ask(connection, "ruvector.scalar_quantize_arr(%s::real[])", [3.0, 3.0])
    assert code == {"data": [0, 0], "scale": 0, "offset": 3}


@pytest.mark.parametrize("name", sorted(WRAPPERS))
def test_wrapper_over_vectors_gives_the_same(connection, name):
    left, right = pair(8)
    over_arrays = ask(connection, f"ruvector.{WRAPPERS[name]}(%s::real[], %s::real[])::text", left, right)
    over_vectors = ask(connection, f"{name}(%s::real[]::vector, %s::real[]::vector)::text", left, right)
    assert over_vectors.strip("[]") == over_arrays.strip("{}")


def test_wrappers_of_one_vector(connection):
    row = connection.execute(
        "SELECT ruvector_dims(v), ruvector_norm(v), ruvector_normalize(v)::text, ruvector_mul_scalar(v, 2)::text"
        " FROM (SELECT '[3,4]'::vector) AS one (v)"
    ).fetchone()
    assert row == (2, 5.0, "[0.6,0.8]", "[6,8]")


@pytest.mark.parametrize(("left", "right", "bits"), [(b"", b"", 0), (b"\x00\xff", b"\x01\x0f", 5), (b"ab", b"ab", 0)])
def test_hamming_distance_of_bytes(connection, left, right, bits):
    assert connection.execute("SELECT ruvector_hamming_distance(%s, %s)", [left, right]).fetchone() == (bits,)


def test_a_vector_column_needs_no_cast(connection):
    assert connection.execute("SELECT ruvector.l2_distance_arr('[0,0]'::vector, '[3,4]'::vector)").fetchone() == (5.0,)


def test_mean_of_large_numbers_does_not_overflow(connection):
    assert ask(connection, "ruvector.vector_avg2(%s::real[], %s::real[])", [3e38], [3e38]) == pytest.approx([3e38])


@pytest.mark.parametrize(
    "call",
    [
        "ruvector.l2_distance_arr(NULL, '{1}')",
        "ruvector.vector_mul_scalar('{1}', NULL)",
        "ruvector.temporal_ema_update('{1}', '{1}', NULL)",
        "ruvector.binary_quantize_arr(NULL)",
        "ruvector_norm(NULL)",
    ],
)
def test_null_gives_null(connection, call):
    assert connection.execute(f"SELECT {call}").fetchone() == (None,)


@pytest.mark.parametrize(
    ("call", "sqlstate", "says"),
    [
        ("ruvector.l2_distance_arr('{1,2}', '{1,2,3}')", "22000", "different vector dimensions 2 and 3"),
        ("ruvector.vector_add('{1}', '{1,2}')", "22000", "different vector dimensions"),
        ("ruvector.vector_norm('{}')", "22000", "at least 1 dimension"),
        ("ruvector.binary_quantize_arr('{}')", "22000", "at least 1 dimension"),
        ("ruvector.scalar_quantize_arr('{1,NULL}')", "22004", "nulls"),
        ("ruvector.scalar_quantize_arr('{NaN}')", "22000", "NaN not allowed"),
        ("ruvector.vector_norm('{{1},{2}}')", "22000", "1-D"),
        ("ruvector.vector_mul_scalar('{3e38}', 10)", "22003", "overflow"),
        ("ruvector.temporal_ema_update('{1}', '{1}', 0)", "22023", "alpha is 0"),
        ("ruvector.temporal_ema_update('{1}', '{1}', 1.5)", "22023", "alpha is 1.5"),
        ("ruvector.temporal_ema_update('{1}', '{1}', 'NaN')", "22023", "alpha is NaN"),
        ("ruvector.temporal_drift('{1}', '{1}', 0)", "22023", "time_delta is 0"),
        ("ruvector.temporal_velocity('{1}', '{1}', 'NaN')", "22023", "dt is NaN"),
        ("ruvector_hamming_distance('a', 'ab')", "22026", "different sizes"),
    ],
)
def test_what_cannot_be_computed_is_refused(connection, call, sqlstate, says):
    with pytest.raises(psycopg.Error, match=says) as caught:
        connection.execute(f"SELECT {call}")
    assert caught.value.sqlstate == sqlstate
