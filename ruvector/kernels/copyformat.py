"""COPY BINARY decoding and page checksums, compiled or in numpy like the rest of the kernels."""

from ruvector.kernels import IS_COMPILED

if IS_COMPILED:
    from ruvector._ext.copyformat import decode, decode_vector, page_crcs
else:
    from ruvector.kernels.reference_copy import decode, decode_vector, page_crcs

__all__ = ["decode", "decode_vector", "page_crcs"]
