"""The SQL functions of arrays."""

from __future__ import annotations

from ruvector.surface import database_only, sql_function
from ruvector.surface.types import Bytea, Double, Int4, Jsonb, Real, RealArray, Vector


@sql_function(system="arrays", volatility="immutable", runs="database", home="ruvector")
def l2_distance_arr(left: RealArray, right: RealArray) -> Double:
    """Return the Euclidean distance of two arrays."""
    database_only()


@sql_function(system="arrays", volatility="immutable", runs="database", home="ruvector")
def l1_distance_arr(left: RealArray, right: RealArray) -> Double:
    """Return the sum of absolute differences of two arrays."""
    database_only()


@sql_function(system="arrays", volatility="immutable", runs="database", home="ruvector")
def inner_product_arr(left: RealArray, right: RealArray) -> Double:
    """Return the inner product of two arrays."""
    database_only()


@sql_function(system="arrays", volatility="immutable", runs="database", home="ruvector")
def neg_inner_product_arr(left: RealArray, right: RealArray) -> Double:
    """Return the negative inner product of two arrays, which orders the most similar first."""
    database_only()


@sql_function(system="arrays", volatility="immutable", runs="database", home="ruvector")
def cosine_distance_arr(left: RealArray, right: RealArray) -> Double:
    """Return one minus the cosine of two arrays; NaN when one of them is zero."""
    database_only()


@sql_function(system="arrays", volatility="immutable", runs="database", home="ruvector")
def cosine_similarity_arr(left: RealArray, right: RealArray) -> Double:
    """Return the cosine of two arrays; NaN when one of them is zero."""
    database_only()


@sql_function(system="arrays", volatility="immutable", runs="database", home="ruvector")
def cosine_distance_normalized_arr(left: RealArray, right: RealArray) -> Double:
    """Return one minus the inner product: the cosine distance of arrays that have length one."""
    database_only()


@sql_function(system="arrays", volatility="immutable", runs="database", home="ruvector")
def vector_dims(v: RealArray) -> Int4:
    """Return the number of elements of an array."""
    database_only()


@sql_function(system="arrays", volatility="immutable", runs="database", home="ruvector")
def vector_norm(v: RealArray) -> Double:
    """Return the Euclidean length of an array."""
    database_only()


@sql_function(system="arrays", volatility="immutable", runs="database", home="ruvector")
def vector_normalize(v: RealArray) -> RealArray:
    """Return an array of length one in the same direction; zero stays zero."""
    database_only()


@sql_function(system="arrays", volatility="immutable", runs="database", home="ruvector")
def vector_add(left: RealArray, right: RealArray) -> RealArray:
    """Return the sum of two arrays, element by element."""
    database_only()


@sql_function(system="arrays", volatility="immutable", runs="database", home="ruvector")
def vector_sub(left: RealArray, right: RealArray) -> RealArray:
    """Return the difference of two arrays, element by element."""
    database_only()


@sql_function(system="arrays", volatility="immutable", runs="database", home="ruvector")
def vector_mul_scalar(v: RealArray, factor: Real) -> RealArray:
    """Return an array with every element multiplied by a number."""
    database_only()


@sql_function(system="arrays", volatility="immutable", runs="database", home="ruvector")
def vector_avg2(left: RealArray, right: RealArray) -> RealArray:
    """Return the mean of two arrays, element by element."""
    database_only()


@sql_function(system="arrays", volatility="immutable", runs="database", home="ruvector")
def temporal_delta(current: RealArray, previous: RealArray) -> RealArray:
    """Return what changed from the previous array to the current one."""
    database_only()


@sql_function(system="arrays", volatility="immutable", runs="database", home="ruvector")
def temporal_undelta(delta: RealArray, previous: RealArray) -> RealArray:
    """Return the current array from a change and the previous array."""
    database_only()


@sql_function(system="arrays", volatility="immutable", runs="database", home="ruvector")
def temporal_ema_update(current: RealArray, ema_prev: RealArray, *, alpha: Real) -> RealArray:
    """Return the next exponential moving average: alpha * current + (1 - alpha) * ema_prev."""
    database_only()


@sql_function(system="arrays", volatility="immutable", runs="database", home="ruvector")
def temporal_drift(v1: RealArray, v2: RealArray, *, time_delta: Real) -> Double:
    """Return the Euclidean distance from one array to a later one, per unit of time."""
    database_only()


@sql_function(system="arrays", volatility="immutable", runs="database", home="ruvector")
def temporal_velocity(v_t0: RealArray, v_t1: RealArray, *, dt: Real) -> RealArray:
    """Return the change from one array to a later one, per unit of time."""
    database_only()


@sql_function(system="arrays", volatility="immutable", runs="database", home="ruvector")
def binary_quantize_arr(v: RealArray) -> Bytea:
    """Return one bit for each element, set where it is greater than zero.

    The first element is the lowest bit of the first byte.
    """
    database_only()


@sql_function(system="arrays", volatility="immutable", runs="database", home="ruvector")
def scalar_quantize_arr(v: RealArray) -> Jsonb:
    """Return an array in one byte for each element: an element is about data * scale + offset.

    `scale` is the range of the elements divided by 255, 0 when they are all equal; the error of an
    element is at most half of it.
    """
    database_only()


@sql_function(system="arrays", volatility="immutable", runs="database")
def ruvector_hamming_distance(left: Bytea, right: Bytea) -> Int4:
    """Return the number of bits in which two byte strings of one length differ."""
    database_only()


@sql_function(system="arrays", volatility="immutable", runs="database")
def ruvector_l2_distance(left: Vector, right: Vector) -> Double:
    """Return the Euclidean distance of two vectors; pgvector's own."""
    database_only()


@sql_function(system="arrays", volatility="immutable", runs="database")
def ruvector_cosine_distance(left: Vector, right: Vector) -> Double:
    """Return one minus the cosine of two vectors; pgvector's own."""
    database_only()


@sql_function(system="arrays", volatility="immutable", runs="database")
def ruvector_inner_product(left: Vector, right: Vector) -> Double:
    """Return the inner product of two vectors; pgvector's own."""
    database_only()


@sql_function(system="arrays", volatility="immutable", runs="database")
def ruvector_l1_distance(left: Vector, right: Vector) -> Double:
    """Return the sum of absolute differences of two vectors; pgvector's own."""
    database_only()


@sql_function(system="arrays", volatility="immutable", runs="database")
def ruvector_dims(v: Vector) -> Int4:
    """Return the number of dimensions of a vector."""
    database_only()


@sql_function(system="arrays", volatility="immutable", runs="database")
def ruvector_norm(v: Vector) -> Double:
    """Return the Euclidean length of a vector."""
    database_only()


@sql_function(system="arrays", volatility="immutable", runs="database")
def ruvector_normalize(v: Vector) -> Vector:
    """Return a vector of length one in the same direction; zero stays zero."""
    database_only()


@sql_function(system="arrays", volatility="immutable", runs="database")
def ruvector_add(left: Vector, right: Vector) -> Vector:
    """Return the sum of two vectors, element by element."""
    database_only()


@sql_function(system="arrays", volatility="immutable", runs="database")
def ruvector_sub(left: Vector, right: Vector) -> Vector:
    """Return the difference of two vectors, element by element."""
    database_only()


@sql_function(system="arrays", volatility="immutable", runs="database")
def ruvector_mul_scalar(v: Vector, factor: Real) -> Vector:
    """Return a vector with every element multiplied by a number."""
    database_only()
