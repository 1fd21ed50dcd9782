"""The scenes before the comparison; each tries one promise and records whether it held."""

from __future__ import annotations

import numpy as np
from rich.table import Table

from ruvector import db
from ruvector.alembic.install import install
from ruvector.client import Client
from ruvector.demo.data import copy_stream
from ruvector.demo.stage import COLLECTION, Stage, ask, ask_direct, lines_of, run

NEW_ID = 900_000
SHORT_TEXT = 60  # characters of a query that is shown
SHOWN_QUERIES = 3
FILTER_QUERIES = 10
RECALL_MIN = 0.98
NEAR = 1e-5  # a distance that counts as zero


def load_table(stage: Stage) -> None:
    """Start the server, create the table, load it."""
    report, clock = stage.report, stage.clock
    report.begin("A private PostgreSQL with real data")
    started = clock.now()
    stage.server.start()
    ready = clock.now()
    with stage.connection() as connection:
        install(stage.dsn)
        run(connection, "create_table")
        with connection.cursor() as cursor, cursor.copy(db.query("demo", "load").encode()) as copy:
            copy.write(copy_stream(stage.wordnet))
        run(connection, "analyze")
        server, pgvector = ask(connection, "versions")[0]
        count = ask(connection, "count")[0][0]
    report.facts |= {"rows": count, "postgres": server, "pgvector": pgvector}
    report.say(f"PostgreSQL {server}, pgvector {pgvector}: up in {ready - started:.1f} s")
    report.say("ruvector install: schema ruvector and the functions ruvector_* are in place")
    report.check(
        f"{count:,} WordNet glosses with 384-dimensional vectors loaded in {clock.now() - ready:.1f} s",
        held=count == len(stage.wordnet.glosses),
    )


def install_and_attach(stage: Stage) -> None:
    """Start the sidecar, attach the column, watch the copy."""
    report = stage.report
    report.begin("ruvector attach public.glosses.embedding --metric cosine --columns pos")
    stage.exits.callback(lambda: stage.process.stop())
    stage.process.start()
    report.say(f"the sidecar (ruvector run) listens on 127.0.0.1:{stage.process.port}")
    with stage.connection() as connection:
        client = Client(connection)
        started = stage.clock.now()
        client.attach("public.glosses.embedding", metric="cosine", columns=["pos"])
        stage.wait_live(client)
        stage.build_seconds = stage.clock.now() - started
        mirror = client.status(COLLECTION)[0]
        kernels = client.simd_info()
    report.facts["kernels"] = kernels
    report.say(f"kernels: {kernels}")
    report.check(
        f"{mirror['rows_indexed']:,} rows copied, indexed and live {stage.build_seconds:.1f} s after attach",
        held=mirror["rows_indexed"] == len(stage.wordnet.glosses),
    )


def show_neighbours(stage: Stage) -> None:
    """Show what a few queries find, with texts."""
    report = stage.report
    report.begin("Nearest neighbours from SQL, joined with their texts")
    for line in lines_of("annotated"):
        report.say(line)
    shown = [number for number, text in enumerate(stage.wordnet.query_texts) if len(text) <= SHORT_TEXT]
    tiers: set[str] = set()
    answers = 0
    with stage.connection() as connection:
        for number in shown[:SHOWN_QUERIES]:
            rows = ask(connection, "annotated", query=stage.query_texts[number])
            answers += len(rows)
            table = Table(title=f"query: {stage.wordnet.query_texts[number]}", title_justify="left", box=None)
            table.add_column("distance", min_width=8)
            table.add_column("pos", min_width=9)
            table.add_column("words", width=24, no_wrap=True, overflow="ellipsis")
            table.add_column("meaning", max_width=70, no_wrap=True, overflow="ellipsis")
            for lemma, pos, gloss, distance, tier in rows:
                tiers.add(tier)
                table.add_row(f"{distance:.4f}", pos, lemma, gloss)
            report.screen.print("", table)
    report.check(
        f"{answers} rows, all found by the index (tier {', '.join(sorted(tiers))})",
        held=answers == 5 * SHOWN_QUERIES and tiers == {"hot"},
    )


def search_with_filter(stage: Stage) -> None:
    """Compare filtered searches with exact SQL under the same condition."""
    report = stage.report
    report.begin('Search with a filter: ruvector_search(..., filter => \'{"pos": "verb"}\')')
    found_total = wrong = 0
    kinds = sorted({gloss.pos for gloss in stage.wordnet.glosses})
    with stage.connection() as connection, stage.connection() as scanning:
        run(scanning, "without_indexes")
        for pos in kinds:
            for query in stage.query_texts[:FILTER_QUERIES]:
                answer = ask(connection, "nearest_of_pos", query=query, pos=pos)
                exact = {row[0] for row in ask(scanning, "exact_of_pos", query=query, pos=pos)}
                wrong += sum(kind != pos for _, kind in answer)
                found_total += len(exact.intersection(key for key, _ in answer))
        engine = stage.answered_by(connection, condition='{"pos": "verb"}')
    searches = len(kinds) * FILTER_QUERIES
    recall = found_total / (10 * searches)
    report.check(f"{searches} searches over {', '.join(kinds)}: {wrong} rows that do not match", held=wrong == 0)
    report.check(f"recall@10 against exact SQL with the same condition: {recall:.4f}", held=recall >= RECALL_MIN)
    report.check(f"answered by {engine}", held=engine == "ruvector")


def write_in_a_transaction(stage: Stage) -> None:
    """INSERT, UPDATE and DELETE are seen by exactly those who may see them, at once."""
    report = stage.report
    report.begin("INSERT, UPDATE, DELETE: right at once, in every transaction")
    first, second = stage.query_texts[0], stage.query_texts[1]
    new = {"id": NEW_ID, "synset": "demo", "gloss": stage.wordnet.query_texts[0], "embedding": first}
    with stage.connection(autocommit=False) as writer, stage.connection() as reader:

        def finds(connection: db.Connection, query: str) -> bool:
            nearest = ask(connection, "nearest", query=query, k=3)
            return any(key == NEW_ID and distance < NEAR for key, distance, _ in nearest)

        run(writer, "insert_gloss", **new)
        report.check("INSERT, not committed: the same transaction finds it", held=finds(writer, first))
        report.check("another connection does not", held=not finds(reader, first))
        writer.commit()
        report.check("COMMIT: the other connection finds it in its next search", held=finds(reader, first))
        run(writer, "update_gloss", id=NEW_ID, embedding=second)
        writer.commit()
        report.check("UPDATE: found under its new vector", held=finds(reader, second))
        report.check("and no longer under the old one", held=not finds(reader, first))
        run(writer, "delete_gloss", id=NEW_ID)
        report.check("DELETE, not committed: gone for the same transaction", held=not finds(writer, second))
        report.check("still there for the other connection", held=finds(reader, second))
        writer.commit()
        report.check("COMMIT: gone for everybody", held=not finds(reader, second))


def kill_the_sidecar(stage: Stage) -> None:
    """Kill the sidecar, search and write without it, start it again, compare every row."""
    report = stage.report
    report.begin("kill -9 of the sidecar: the database answers, nothing is lost")
    notices: list[str] = []
    with stage.connection(notices=notices) as connection, stage.connection() as scanning:
        client = Client(connection)
        run(scanning, "without_indexes")
        ask(connection, "nearest", query=stage.query_texts[0], k=10)
        quiet = not notices
        number = stage.process.kill()
        report.say(f"process {number} killed")
        answer = ask(connection, "nearest", query=stage.query_texts[0], k=10)
        exact = [row[0] for row in ask(scanning, "ordered", query=stage.query_texts[0])]
        engines = {row[2] for row in answer}
        report.check(
            f"the next search is answered by {', '.join(sorted(engines))}, and is right",
            held=[row[0] for row in answer] == exact and "hot" not in engines,
        )
        report.say(f"NOTICE: {notices[-1] if notices else '(none)'}")
        report.check("and says so", held=quiet and any("searched by the database itself" in text for text in notices))
        changed = [run(connection, name) for name in ("insert_many", "update_many", "delete_many")]
        report.say("while it is dead: {} rows inserted, {} updated, {} deleted".format(*changed))
        stage.process.start()
        waited = stage.wait_live(client)
        count = ask(connection, "count")[0][0]
        report.say(f"started again, live after {waited:.1f} s")
        client.wait_applied(COLLECTION, timeout_ms=10_000)
        findings = client.verify(COLLECTION, full=True)
        report.check(
            f"ruvector verify --full: {findings['checked']:,} rows compared, {findings['differences']} differences",
            held=findings["checked"] == count and findings["differences"] == 0,
        )
        engine = stage.answered_by(connection)
        report.check(f"searches are answered by {engine} again", held=engine == "ruvector")


def connect_directly(stage: Stage) -> None:
    """Ask the sidecar itself over the PostgreSQL protocol."""
    report = stage.report
    report.begin("A PostgreSQL client connected to the sidecar itself")
    report.say(f"psql -h 127.0.0.1 -p {stage.process.port} -U ruvector ruvector")
    for line in lines_of("direct"):
        report.say(line.format(collection=f"'{COLLECTION}'", query="'[...]'"))
    query = stage.query_texts[2]
    with stage.connection() as connection:
        through_database = ask(connection, "nearest", query=query, k=5)
    with db.connect(stage.process.direct_dsn(), application_name="ruvector demo") as direct:
        rows = ask_direct(direct, query)
    for key, distance, *_ in rows:
        report.say(f"  {key:>8}  {distance:.6f}")
    same = np.allclose([row[1] for row in rows], [row[1] for row in through_database], atol=NEAR)
    report.check(
        "the same rows as through the database",
        held=len(rows) == 5 and same and [int(row[0]) for row in rows] == [row[0] for row in through_database],
    )
