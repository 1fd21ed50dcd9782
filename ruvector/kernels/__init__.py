"""Arithmetic over arrays of vectors, compiled or in numpy, chosen once at import.

Takes: arrays of queries and rows.  Gives: distances with pgvector's signs, norms, checks and decoded COPY data.

RUVECTOR_KERNELS=numpy chooses the numpy twin (ruvector.kernels.reference), which has the same names and answers;
anything else the compiled kernels, whose instruction set the CPU or RUVECTOR_SIMD decides.
"""

import os

from ruvector.errors import InvalidParameter

_WANTED = os.environ.get("RUVECTOR_KERNELS", "") or "compiled"

if _WANTED == "compiled":
    from ruvector.kernels.compiled import check_finite, distances, normalize, norms, simd_info, simd_name
elif _WANTED == "numpy":
    from ruvector.kernels.reference import check_finite, distances, normalize, norms, simd_info, simd_name
else:
    raise InvalidParameter(
        f'RUVECTOR_KERNELS is "{_WANTED}"', hint="Use compiled or numpy, or leave the variable unset."
    )

IS_COMPILED = _WANTED == "compiled"

__all__ = ["IS_COMPILED", "check_finite", "distances", "normalize", "norms", "simd_info", "simd_name"]
