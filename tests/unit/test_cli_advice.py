"""Advice follows from catalog rows alone."""

import pytest

from ruvector.cli.advice import index_advice, server_blockers, version_numbers

SERVER = {
    "version": "16.4",
    "version_number": 160004,
    "is_standby": False,
    "may_install": True,
    "role": "me",
    "database": "d",
    "maintenance_work_mem": 64 << 20,
    "statistics_since": None,
}
EXTENSIONS = {
    "vector": {"installed": "0.8.0", "available": "0.8.0"}, "dblink": {"installed": "1.2", "available": "1.2"},
}  # fmt: skip
INDEX = {"table_oid": 1, "method": "ivfflat", "options": ["lists=10"], "is_valid": True, "name": "public.i",
         "scans": 1, "bytes": 1 << 20}  # fmt: skip


def test_a_good_server_is_not_blocked():
    assert server_blockers(SERVER, EXTENSIONS, is_installed=False) == []


@pytest.mark.parametrize(
    ("server", "extensions", "problem"),
    [
        ({"version_number": 130000}, {}, "too old"),
        ({"is_standby": True}, {}, "standby"),
        ({"may_install": False}, {}, "may not create a schema"),
        ({}, {"vector": {"installed": None, "available": None}}, "not available"),
        ({}, {"dblink": {"installed": None, "available": "1.2"}}, "not installed"),
        ({}, {"vector": {"installed": "0.6.2", "available": "0.8.0"}}, "older than 0.7"),
    ],
)
def test_what_stops_an_installation(server, extensions, problem):
    remarks = server_blockers({**SERVER, **server}, {**EXTENSIONS, **extensions}, is_installed=False)
    assert [problem in remark["problem"] for remark in remarks] == [True]


@pytest.mark.parametrize(("rows", "remarks"), [(10_000, 0), (900_000, 1), (100, 1), (None, 0)])
def test_lists_that_do_not_fit_the_table(rows, remarks):
    assert len(index_advice(INDEX, [{"table_oid": 1, "rows": rows}], SERVER)) == remarks


def test_invalid_index():
    remark = index_advice({**INDEX, "is_valid": False}, [], SERVER)[0]
    assert (remark["severity"], remark["fix"]) == ("error", "REINDEX INDEX CONCURRENTLY public.i;")


def test_unused_index_and_one_whose_build_does_not_fit_memory():
    (unused,) = index_advice({**INDEX, "scans": 0}, [], SERVER)
    assert "since the statistics began" in unused["evidence"]
    large = {**INDEX, "method": "hnsw", "options": [], "bytes": (100 << 20) + 1}
    (remark,) = index_advice(large, [], SERVER)
    assert remark["fix"].startswith("SET maintenance_work_mem = '101MB';")


@pytest.mark.parametrize(("text", "numbers"), [("0.8.0", (0, 8, 0)), ("1.2", (1, 2)), ("0.9beta", (0,))])
def test_version_numbers(text, numbers):
    assert version_numbers(text) == numbers
