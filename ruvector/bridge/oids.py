"""The object identifiers of PostgreSQL's built-in types that cross the wire; they never change."""

from __future__ import annotations

from typing import Final

UNKNOWN_TYPE: Final = 0  # what a client sends when it leaves the type to the server
BOOL: Final = 16
BYTEA: Final = 17
NAME: Final = 19
INT8: Final = 20
INT2: Final = 21
INT4: Final = 23
TEXT: Final = 25
OID: Final = 26
JSON: Final = 114
FLOAT4: Final = 700
FLOAT8: Final = 701
UNKNOWN: Final = 705
VARCHAR: Final = 1043
NUMERIC: Final = 1700
JSONB: Final = 3802

BOOL_ARRAY: Final = 1000
INT2_ARRAY: Final = 1005
INT4_ARRAY: Final = 1007
TEXT_ARRAY: Final = 1009
VARCHAR_ARRAY: Final = 1015
INT8_ARRAY: Final = 1016
FLOAT4_ARRAY: Final = 1021
FLOAT8_ARRAY: Final = 1022
NUMERIC_ARRAY: Final = 1231

ELEMENT_OF: Final[dict[int, int]] = {
    BOOL_ARRAY: BOOL,
    INT2_ARRAY: INT2,
    INT4_ARRAY: INT4,
    TEXT_ARRAY: TEXT,
    VARCHAR_ARRAY: VARCHAR,
    INT8_ARRAY: INT8,
    FLOAT4_ARRAY: FLOAT4,
    FLOAT8_ARRAY: FLOAT8,
    NUMERIC_ARRAY: NUMERIC,
}

# typlen of pg_type; every type that is not listed has a variable length (-1)
LENGTH_OF: Final[dict[int, int]] = {BOOL: 1, INT2: 2, INT4: 4, INT8: 8, OID: 4, FLOAT4: 4, FLOAT8: 8, NAME: 64}

# Names a statement may use in a cast, in their lower-case written forms.
OID_OF_NAME: Final[dict[str, int]] = {
    "bool": BOOL,
    "boolean": BOOL,
    "int2": INT2,
    "smallint": INT2,
    "int": INT4,
    "int4": INT4,
    "integer": INT4,
    "int8": INT8,
    "bigint": INT8,
    "float4": FLOAT4,
    "real": FLOAT4,
    "float": FLOAT8,
    "float8": FLOAT8,
    "double precision": FLOAT8,
    "numeric": NUMERIC,
    "decimal": NUMERIC,
    "text": TEXT,
    "name": TEXT,
    "varchar": TEXT,
    "character varying": TEXT,
    "json": JSON,
    "jsonb": JSONB,
}

ARRAY_OF: Final[dict[int, int]] = {
    BOOL: BOOL_ARRAY,
    INT2: INT2_ARRAY,
    INT4: INT4_ARRAY,
    INT8: INT8_ARRAY,
    FLOAT4: FLOAT4_ARRAY,
    FLOAT8: FLOAT8_ARRAY,
    NUMERIC: NUMERIC_ARRAY,
    TEXT: TEXT_ARRAY,
}

# Types of extensions have no fixed identifier: their values stay text, which the called function reads itself.
TEXT_LIKE_NAMES: Final = frozenset({"vector", "halfvec", "sparsevec", "bit", "bit varying", "varbit", "uuid"})
