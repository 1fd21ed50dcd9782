"""COPY BINARY data of a real server, decoded for every key type and element type."""

import numpy as np
import psycopg
import pytest

from ruvector import SparseVectors
from ruvector.kernels.copyformat import decode, decode_vector

ROWS = 700


@pytest.fixture
def connection(database):
    with psycopg.connect(str(database), autocommit=True) as connection:
        connection.execute(
            "CREATE TABLE items (small int2, middle int4, big int8, name text, full_vector vector(19),"
            " half_vector halfvec(19), bit_vector bit(19), loose vector)"
        )
        rng = np.random.default_rng(7)
        vectors = rng.standard_normal((ROWS, 19)).astype(np.float16)
        with connection.cursor().copy("COPY items FROM STDIN") as copy:
            for at, vector in enumerate(vectors):
                values = "[" + ",".join(map(str, vector.tolist())) + "]"
                bits = "".join("1" if value > 0 else "0" for value in vector)
                copy.write_row([at - 300, 10 * at, 2**40 + at, f"näme {at}", values, values, bits, None])
        connection.execute(
            "UPDATE items SET loose = CASE big % 3 WHEN 0 THEN NULL WHEN 1 THEN '[1,2]' ELSE full_vector END"
        )
        yield connection, vectors


def copy_out(connection, columns):
    with connection.cursor().copy(f"COPY (SELECT {columns} FROM items ORDER BY big) TO STDOUT (FORMAT BINARY)") as copy:
        return b"".join(bytes(part) for part in copy)


@pytest.mark.parametrize(("column", "first", "step"), [("small", -300, 1), ("middle", 0, 10), ("big", 2**40, 1)])
def test_integer_keys_and_vectors(connection, column, first, step):
    connection, vectors = connection
    decoded = decode(copy_out(connection, f"{column}, full_vector"), key_kind="int64", element="f32", dims=19)
    assert decoded.keys.tolist() == [first + step * at for at in range(ROWS)]
    np.testing.assert_array_equal(decoded.vectors, vectors.astype(np.float32))


def test_text_keys_halves_and_bits(connection):
    connection, vectors = connection
    decoded = decode(copy_out(connection, "name, half_vector"), key_kind="text", element="f16", dims=19)
    assert decoded.keys == [f"näme {at}" for at in range(ROWS)]
    np.testing.assert_array_equal(decoded.vectors, vectors)
    decoded = decode(copy_out(connection, "name, bit_vector"), key_kind="text", element="bit", dims=19)
    np.testing.assert_array_equal(decoded.vectors, np.packbits(vectors > 0, axis=1))


def test_missing_and_wrong_vectors(connection):
    connection, vectors = connection
    decoded = decode(copy_out(connection, "big, loose"), key_kind="int64", element="f32", dims=19)
    keys = np.arange(2**40, 2**40 + ROWS)
    assert decoded.missing_keys.tolist() == keys[keys % 3 == 0].tolist()
    assert decoded.wrong_keys.tolist() == keys[keys % 3 == 1].tolist()
    assert decoded.keys.tolist() == keys[keys % 3 == 2].tolist()
    np.testing.assert_array_equal(decoded.vectors, vectors[keys % 3 == 2].astype(np.float32))


def test_sparse_vectors(connection):
    connection, _ = connection
    texts = SparseVectors.from_texts(["{1:0.5,7:-2,19:3e30}/19", "{}/19", "{2:1e-40}/19"]).texts()
    connection.execute("CREATE TABLE words (id int, words sparsevec)")
    connection.cursor().executemany("INSERT INTO words VALUES (%s, %s)", list(enumerate([*texts, None, "{3:1}/20"])))
    with connection.cursor().copy("COPY (SELECT * FROM words ORDER BY id) TO STDOUT (FORMAT BINARY)") as copy:
        decoded = decode(b"".join(bytes(part) for part in copy), key_kind="int64", element="sparse", dims=19)
    assert decoded.vectors.texts() == texts
    assert (decoded.keys.tolist(), decoded.missing_keys.tolist(), decoded.wrong_keys.tolist()) == ([0, 1, 2], [3], [4])


def test_one_vector_from_vector_send(connection):
    connection, vectors = connection
    (payload,) = connection.execute("SELECT vector_send(full_vector) FROM items ORDER BY big LIMIT 1").fetchone()
    np.testing.assert_array_equal(decode_vector(payload), vectors[0].astype(np.float32))
