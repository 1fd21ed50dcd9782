"""Filters: every operator on every type answers like the same condition in SQL, always with min(k, matching) rows."""

import json

import pytest
from psycopg.rows import dict_row
from table_kit import SEARCH, VectorTable, gaussian, refused, text_of

from ruvector import limits

DIMS, ROWS = 8, 2500
K = 10
COLUMNS = {
    "flag": "bool",
    "small": "int2",
    "category": "int4",
    "big": "int8",
    "real_number": "float4",
    "double_number": "float8",
    "price": "numeric(10,2)",
    "title": "text",
    "code": "char(4)",
    "day": "date",
    "at": "timestamptz",
    "local_time": "timestamp",
    "tag": "uuid",
    "labels": "text[]",
    "numbers": "int4[]",
    "big_numbers": "int8[]",
}
TABLE = VectorTable(
    "filtered",
    columns="id bigint PRIMARY KEY, secret text, " + ", ".join(f'"{name}" {kind}' for name, kind in COLUMNS.items()),
    dims=DIMS,
    options={"columns": list(COLUMNS)},
)
# Every tenth row has NULL in all of them.
VALUES = """
UPDATE filtered SET secret = 'x', flag = id % 2 = 0, small = id % 100 - 50, category = id % 20, big = id * 10000000000,
  real_number = id / 10.0, double_number = id / 3.0, price = id / 100.0, title = 'it''s "' || (id % 5) || '" ü%',
  code = 'c' || id % 3, day = date '2024-01-01' + (id % 365)::int,
  at = timestamptz '2024-01-01Z' + id * interval '1 hour',
  local_time = timestamp '2024-01-01' + id * interval '1 hour',
  tag = ('00000000-0000-0000-0000-' || lpad((id % 7)::text, 12, '0'))::uuid,
  labels = ARRAY['all', 'l' || id % 4, 'it''s {a,"b"}'], numbers = ARRAY[id % 6, id % 4, NULL], big_numbers = ARRAY[id]
WHERE id % 10 <> 0
"""

# filter, and the same condition in SQL over alias t
CONDITIONS = [
    # every operator
    ({"category": 3}, "t.category = 3"),
    ({"category": {"$eq": 3}}, "t.category = 3"),
    ({"category": {"$ne": 3}}, "t.category <> 3"),
    ({"category": {"$lt": 3}}, "t.category < 3"),
    ({"category": {"$lte": 3}}, "t.category <= 3"),
    ({"category": {"$gt": 16}}, "t.category > 16"),
    ({"category": {"$gte": 16}}, "t.category >= 16"),
    ({"category": {"$gte": 3, "$lt": 5, "$ne": 4}}, "t.category = 3"),
    ({"category": [1, 2, 77]}, "t.category IN (1, 2, 77)"),
    ({"category": {"$in": [1, 2]}}, "t.category IN (1, 2)"),
    ({"category": {"$nin": [1, 2]}}, "t.category NOT IN (1, 2)"),
    ({"category": {"$in": []}}, "false"),
    ({"category": {"$nin": []}}, "true"),
    ({"category": []}, "false"),
    ({"category": None}, "t.category IS NULL"),
    ({"category": {"$eq": None}}, "t.category IS NULL"),
    ({"category": {"$ne": None}}, "t.category IS NOT NULL"),
    ({"category": {"$exists": True}}, "t.category IS NOT NULL"),
    ({"category": {"$exists": False}}, "t.category IS NULL"),
    ({"category": {}}, "true"),
    ({}, "true"),
    # combined and nested
    ({"category": 3, "flag": False}, "t.category = 3 AND NOT t.flag"),
    ({"$and": [{"category": 3}, {"flag": False}]}, "t.category = 3 AND NOT t.flag"),
    ({"$or": [{"category": 3}, {"category": 4, "flag": True}]}, "t.category = 3 OR t.category = 4 AND t.flag"),
    ({"$not": {"category": {"$lt": 19}}}, "NOT t.category < 19"),
    ({"$not": {"$or": [{"category": {"$lt": 18}}, {"category": None}]}}, "NOT (t.category < 18 OR t.category IS NULL)"),
    ({"$or": [{"$and": [{"flag": True}, {"$not": {"category": {"$gt": 0}}}]}, {"tag": None, "small": {"$gt": 0}}]},
     "t.flag AND NOT t.category > 0 OR t.tag IS NULL AND t.small > 0"),
    # types
    ({"flag": True}, "t.flag"),
    ({"flag": "false"}, "NOT t.flag"),
    ({"small": {"$lt": -45}}, "t.small < -45"),
    ({"big": 70000000000}, "t.big = 70000000000"),
    ({"real_number": {"$lte": 1.1}}, "t.real_number <= 1.1::real"),
    ({"real_number": 0.3}, "t.real_number = 0.3::real"),
    ({"double_number": {"$gt": 1e2, "$lt": 110}}, "t.double_number > 100 AND t.double_number < 110"),
    ({"price": {"$lt": 0.05}}, "t.price < 0.05"),
    ({"price": "1.23"}, "t.price = 1.23"),
    ({"title": "it's \"2\" ü%"}, "t.title = 'it''s \"2\" ü%'"),
    ({"title": {"$gte": "it's \"4"}}, "t.title >= 'it''s \"4'"),
    ({"code": "c1"}, "t.code = 'c1'"),
    ({"code": ["c1", "c2  "]}, "t.code IN ('c1', 'c2')"),
    ({"day": "2024-02-29"}, "t.day = '2024-02-29'"),
    ({"day": {"$gte": "2024-12-01"}}, "t.day >= '2024-12-01'"),
    ({"at": {"$lt": "2024-01-01T06:00:00+02:00"}}, "t.at < '2024-01-01T04:00:00Z'"),
    ({"at": "2024-01-02 03:00:00Z"}, "t.at = '2024-01-02T03:00:00Z'"),
    ({"local_time": {"$lt": "2024-01-01 06:00"}}, "t.local_time < '2024-01-01 06:00'"),
    ({"tag": "00000000-0000-0000-0000-000000000003"}, "t.tag = '00000000-0000-0000-0000-000000000003'"),
    ({"labels": "l2"}, "'l2' = ANY (t.labels)"),
    ({"labels": {"$in": ["l1", "l3"]}}, "t.labels && ARRAY['l1', 'l3']"),
    ({"labels": ["it's {a,\"b\"}"]}, "t.labels && ARRAY['it''s {a,\"b\"}']"),
    ({"labels": {"$nin": ["l1"]}}, "NOT t.labels && ARRAY['l1']"),
    ({"labels": {"$ne": "l1"}}, "NOT 'l1' = ANY (t.labels)"),
    ({"labels": None}, "t.labels IS NULL"),
    ({"labels": {"$exists": True}}, "t.labels IS NOT NULL"),
    ({"labels": []}, "false"),
    ({"numbers": 5}, "5 = ANY (t.numbers)"),
    ({"numbers": [4, 5]}, "t.numbers && ARRAY[4, 5]"),
    ({"big_numbers": [7, 8]}, "t.big_numbers && ARRAY[7, 8]::int8[]"),
    # selectivity: nothing, one row, 0.1 %, a half, all
    ({"category": 1000}, "false"),
    ({"big_numbers": 2499}, "t.id = 2499"),
    ({"big": {"$lte": 30000000000}}, "t.big <= 30000000000"),
    ({"flag": True}, "t.flag"),
    ({"category": {"$exists": True}}, "t.category IS NOT NULL"),
    # NULL in lists counts as in SQL
    ({"category": [1, None]}, "t.category IN (1, NULL)"),
    ({"category": {"$nin": [1, None]}}, "t.category NOT IN (1, NULL)"),
    ({"category": {"$nin": [None]}}, "t.category NOT IN (NULL)"),
    ({"$not": {"category": [1, None]}}, "NOT t.category IN (1, NULL)"),
    ({"$or": [{"category": [1, None]}, {"category": 2}]}, "t.category IN (1, 2)"),
    ({"$not": {"category": {"$nin": [1, 2, None]}}}, "t.category IN (1, 2)"),
    ({"title": [None, "it's \"2\" ü%"]}, "t.title = 'it''s \"2\" ü%'"),
    ({"labels": ["l1", None]}, "t.labels && ARRAY['l1', NULL]"),
    ({"labels": {"$nin": ["l1", None]}}, "NOT t.labels && ARRAY['l1', NULL]"),
    ({"category": {"$lt": None}}, "false"),
    ({"$not": {"category": 3}}, "NOT t.category = 3"),
    ({"$not": {"category": None}}, "t.category IS NOT NULL"),
    ({"$not": {"labels": "l2"}}, "NOT 'l2' = ANY (t.labels)"),
    # lists of every type
    ({"flag": [True]}, "t.flag"),
    ({"small": [-45, "7", 20]}, "t.small IN (-45, 7, 20)"),
    ({"big": ["70000000000", 80000000000]}, "t.big IN (70000000000, 80000000000)"),
    ({"real_number": [0.3, 0.4, "NaN"]}, "t.real_number IN (0.3::real, 0.4::real)"),
    ({"double_number": {"$in": [1, 2, "Infinity"]}}, "t.double_number IN (1, 2)"),
    ({"price": [1.230, "4.56", 1e-1]}, "t.price IN (1.23, 4.56, 0.1)"),
    ({"title": {"$nin": ["it's \"2\" ü%", "NULL", "{", "\\", ",", ""]}}, "t.title <> 'it''s \"2\" ü%'"),
    ({"day": ["2024-02-29", "March 1, 2024"]}, "t.day IN ('2024-02-29', '2024-03-01')"),
    ({"at": ["2024-01-02 03:00", "2024-01-01T06:00:00+02:00"]}, "t.id IN (27, 4)"),
    ({"tag": {"$nin": ["00000000000000000000000000000003"]}}, "t.tag <> '00000000-0000-0000-0000-000000000003'"),
    # values that look like SQL
    ({"title": "' OR true --"}, "false"),
    ({"title": "'; DROP TABLE filtered; --"}, "false"),
    ({"title": "\\'; DROP TABLE filtered; --"}, "false"),
    ({"title": "$1"}, "false"),
    ({"title": "{column}"}, "false"),
    ({"labels": "x}'); DROP TABLE filtered; --"}, "false"),
    ({"title": ["' || current_user || '"]}, "false"),
]  # fmt: skip


@pytest.fixture(scope="module")
def filtered(shared_sidecar, shared_database):
    with shared_database.connect() as connection:
        TABLE.create(connection)
        TABLE.insert(connection, gaussian(ROWS, DIMS, seed=10))
        connection.execute(VALUES)
        TABLE.attach(connection)
        shared_sidecar.wait_live(TABLE.name)
        yield connection


@pytest.mark.parametrize(("condition", "where"), CONDITIONS, ids=[json.dumps(case[0]) for case in CONDITIONS])
def test_filter_equals_the_condition_in_sql(filtered, condition, where):
    found = TABLE.check(filtered, gaussian(1, DIMS, seed=11)[0], k=K, filter_=condition, where=where)
    matching = filtered.execute(f"SELECT count(*) FROM filtered t WHERE {where}").fetchone()[0]
    assert len(found) == min(K, matching)


@pytest.mark.parametrize(("condition", "share"), [({"flag": True}, 0.45), ({"category": 1000}, 0.0), ({}, 1.0)])
def test_explain_estimates_the_selectivity(filtered, condition, share):
    explained = TABLE.explain(filtered, gaussian(1, DIMS, seed=12)[0], filter_=condition)
    assert explained["engine"] == "ruvector"
    assert explained["plan"].startswith(("index, filtered", "index, filter after join, refill"))
    assert explained["selectivity"] == pytest.approx(share, abs=0.2 if 0 < share < 1 else 0)


def test_filter_sees_what_this_transaction_wrote(filtered):
    query = gaussian(1, DIMS, seed=13)[0]
    with filtered.transaction(force_rollback=True):
        filtered.execute("UPDATE filtered SET category = 777 WHERE id IN (5, 6, 10)")
        filtered.execute("DELETE FROM filtered WHERE id = 6")
        filtered.execute("INSERT INTO filtered (id, category, embedding) VALUES (9999, 777, %s)", (text_of(query),))
        found = TABLE.check(filtered, query, filter_={"category": 777}, where="t.category = 777")
        assert {row[0] for row in found} == {"5", "10", "9999"}
    TABLE.check(filtered, query, filter_={"category": 777}, where="t.category = 777")


def test_times_without_a_zone_mean_utc_in_every_session(filtered):
    query = gaussian(1, DIMS, seed=14)[0]
    answers = []
    for zone in ("UTC", "Asia/Kolkata"):
        with filtered.transaction():
            filtered.execute("SELECT set_config('timezone', %s, true)", (zone,))
            answers.append(TABLE.search(filtered, query, filter_={"at": "2024-01-02 03:00"}))
    assert answers[0] == answers[1]
    assert [row[0] for row in answers[0]] == ["27"]


# filter, SQLSTATE, message, part of the hint
BAD_FILTERS = [
    ({"nothing": 1}, "42703", 'column nothing is not a filter column of collection "filtered"', "--columns"),
    ({"secret": "x"}, "42703", 'column secret is not a filter column of collection "filtered"', ",secret"),
    ({"embedding": 1}, "42703", 'column embedding is not a filter column of collection "filtered"', "--columns"),
    ({'x"; DROP TABLE filtered; --': 1}, "42703",
     'column "x""; DROP TABLE filtered; --" is not a filter column of collection "filtered"', "--columns"),
    ({"$where": 1}, "42703", 'column "$where" is not a filter column of collection "filtered"', "--columns"),
    ({"category": {"$like": "x"}}, "22023", "filter on column category: unknown operator '$like'", "$exists"),
    ({"category": {"= 1 OR true --": 1}}, "22023", "filter on column category: unknown operator '= 1 OR true --'",
     "Operators are"),
    ({"category": "abc"}, "22023", 'filter on column category: "abc" is not a value of type integer', "could hold"),
    ({"category": 1.5}, "22023", "filter on column category: 1.5 is not a value of type integer", "could hold"),
    ({"category": 3000000000}, "22023", "filter on column category: 3000000000 is not a value of type integer", "hold"),
    ({"category": [1, "x"]}, "22023", 'filter on column category: "x" is not a value of type integer', "could hold"),
    ({"category": {"$in": 3}}, "22023", "filter on column category: $in expects a list, not 3", '{"$in"'),
    ({"category": [[1]]}, "22023", "filter on column category expects a single value, not [1]", "string, number"),
    ({"category": {"$lt": {"a": 1}}}, "22023", 'filter on column category expects a single value, not {"a": 1}',
     "null"),
    ({"category": {"$exists": 1}}, "22023", "filter on column category: $exists expects true or false, not 1",
     "$exists"),
    ({"labels": {"$lt": "x"}}, "22023", "filter on column labels: $lt does not work on a list", "contains"),
    ({"day": "2024-02-30"}, "22023", 'filter on column day: "2024-02-30" is not a value of type date', "could hold"),
    ({"tag": "x"}, "22023", 'filter on column tag: "x" is not a value of type uuid', "could hold"),
    ({"$and": {}}, "22023", "$and expects a list of filters, not {}", "$or"),
    ({"$or": []}, "22023", "$or expects a list of filters, not []", "$or"),
    ({"$and": [1]}, "22023", "a filter must be a jsonb object, not 1", "For example"),
    ({"$not": [1]}, "22023", "a filter must be a jsonb object, not [1]", "For example"),
    ([1], "22023", "a filter must be a jsonb object, not [1]", "For example"),
    ("x", "22023", 'a filter must be a jsonb object, not "x"', "For example"),
    ({"category": list(range(100_001))}, "54000",
     "filter on column category: the list has 100001 values, at most 100000 are allowed", "keys =>"),
    ({"title": [["'"]]}, "22023", 'filter on column title expects a single value, not ["\'"]', "string, number"),
    ({"title": ["[", {"a": 1}]}, "22023", 'filter on column title expects a single value, not {"a": 1}', "string"),
    ({"big": [1, 1e30]}, "22023",
     "filter on column big: 1000000000000000000000000000000 is not a value of type bigint", "could hold"),
    ({"real_number": 1e60}, "22023", f"filter on column real_number: {10**60} is not a value of type real", "hold"),
    ({"labels": [{"$eq": 1}]}, "22023", 'filter on column labels expects a single value, not {"$eq": 1}', "string"),
    ({"at": ["2024-01-01", "2024-13-01"]}, "22023",
     'filter on column at: "2024-13-01" is not a value of type timestamp with time zone', "could hold"),
]  # fmt: skip


@pytest.mark.parametrize(("condition", "code", "message", "hint"), BAD_FILTERS, ids=lambda value: str(value)[:50])
def test_bad_filter_is_refused_with_the_reason(filtered, condition, code, message, hint):
    query = text_of(gaussian(1, DIMS, seed=15)[0])
    problem = refused(filtered, SEARCH, (TABLE.name, query, K, None, json.dumps(condition)))
    assert (problem.code, problem.message) == (code, message)
    assert hint in problem.hint


def test_deep_nesting_is_refused_and_the_allowed_depth_works(filtered):
    def nested(depth):
        condition = {"category": 3}
        for _ in range(depth):
            condition = {"$and": [condition]}
        return condition

    query = gaussian(1, DIMS, seed=16)[0]
    TABLE.check(filtered, query, filter_=nested(32), where="t.category = 3")
    problem = refused(filtered, SEARCH, (TABLE.name, text_of(query), K, None, json.dumps(nested(33))))
    assert (problem.code, problem.message) == ("54000", "the filter is nested deeper than 32 levels")


@pytest.mark.parametrize("values", [list(range(10, 100_010)), [str(n) for n in range(-99_988, 12)]], ids=["n", "text"])
def test_a_hundred_thousand_values_fit_in_one_list(filtered, values):
    assert len(values) == limits.FILTER_VALUES_MAX
    query = gaussian(1, DIMS, seed=17)[0]
    where = f"t.category BETWEEN {values[0]} AND {values[-1]}"
    TABLE.check(filtered, query, filter_={"category": values}, where=where)
    TABLE.check(filtered, query, filter_={"category": {"$nin": values}}, where=f"NOT {where}")
    TABLE.check(filtered, query, filter_={"title": list(map(str, values))}, where="false")


@pytest.mark.parametrize(
    ("condition", "place"),
    [
        ({"$and": [{"flag": True}, {"$or": [{"category": {"$lt": "x"}}]}]}, "At $.$and[1].$or[0].category.$lt: "),
        ({"$not": {"category": [*range(60_000), "x", *range(30_000), "y"]}}, "At $.$not.category.$in[60000]: "),
        ({"flag": True, "small": {"$gt": 1, "$in": [1, [2]]}}, "At $.small.$in[1]."),
        ({"$or": [{"flag": 7}]}, "At $.$or[0].flag.$eq: "),
        ({"$or": [{"flag": True}, {"nothing": 7}]}, "At $.$or[1].nothing. Filter columns: "),
        ({"$or": [{"flag": True}, 7]}, "At $.$or[1]."),
        ({"labels": {"$exists": None}}, "At $.labels.$exists."),
    ],
    ids=lambda value: str(value)[:50],
)
def test_error_names_the_place_in_the_filter(filtered, condition, place):
    query = text_of(gaussian(1, DIMS, seed=18)[0])
    problem = refused(filtered, SEARCH, (TABLE.name, query, K, None, json.dumps(condition)))
    assert problem.detail.startswith(place)


def test_filter_is_read_into_sql_and_into_the_form_of_the_sidecar(filtered):
    def parts(condition):
        cursor = filtered.cursor(row_factory=dict_row)
        return cursor.execute(
            "SELECT f.condition, f.canonical FROM ruvector.collection c, ruvector.filter_parts(c, %s) f"
            " WHERE c.name = 'filtered'",
            (json.dumps(condition),),
        ).fetchone()

    assert parts({}) == {"condition": "(true)", "canonical": {}}
    with filtered.transaction():
        filtered.execute("SET LOCAL timezone = 'Asia/Kolkata'")
        filtered.execute("SET LOCAL datestyle = 'German'")
        filtered.execute("SET LOCAL extra_float_digits = -15")
        assert parts(
            {
                "$and": [{"at": {"$lt": "2024-02-01 00:00"}}, {"$not": {"day": ["2024-2-1", None]}}],
                "real_number": 0.1, "flag": True, "category": None, "price": {"$gte": "1.50", "$exists": True},
                "labels": {"$nin": ["a,b", "NULL"]}, "numbers": 7,
            }
        ) == {
            "condition": "((((i.at < '2024-02-01 00:00:00+00'::timestamp with time zone))"
            " and ((not ((i.day = any ('{2024-02-01,NULL}'::date[]))))))"
            " and (i.flag = 'true'::boolean)"
            " and (i.price >= '1.50'::numeric and i.price is not null)"
            " and (not (i.labels && '{\"a,b\",\"NULL\"}'::text[]))"
            " and (('7'::integer = any (i.numbers)))"
            " and (i.category is null)"
            " and (i.real_number = '0.1'::real))",
            "canonical": {
                "$and": [
                    {"at": {"$lt": "2024-02-01 00:00:00+00"}}, {"$not": {"day": {"$in": ["2024-02-01", None]}}},
                ],
                "real_number": {"$eq": "0.1"}, "flag": {"$eq": "true"}, "category": {"$eq": None},
                "price": {"$gte": "1.50", "$exists": True}, "labels": {"$nin": ["a,b", "NULL"]},
                "numbers": {"$eq": "7"},
            },
        }  # fmt: skip


def test_plan_of_a_filter_can_be_forced(filtered):
    query = gaussian(1, DIMS, seed=19)[0]
    for plan in ("auto", "scan", "hop", "walk", ""):
        with filtered.transaction():
            filtered.execute("SELECT set_config('ruvector.filter_plan', %s, true)", (plan,))
            TABLE.check(filtered, query, filter_={"category": 3}, where="t.category = 3")
            TABLE.check(filtered, query, keys=["1", "2"], where="t.id IN (1, 2)")
            TABLE.check(filtered, query)
    with filtered.transaction():
        filtered.execute("SET LOCAL ruvector.filter_plan = 'guess'")
        TABLE.check(filtered, query)  # read with a filter only
        problem = refused(filtered, SEARCH, (TABLE.name, text_of(query), K, None, '{"category": 3}'))
    assert (problem.code, problem.message) == ("22023", "unknown ruvector.filter_plan 'guess'")
    assert problem.hint == "Values are auto, scan, hop and walk."
