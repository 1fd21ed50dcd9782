"""Carry out the query messages of one session: simple queries, prepared statements and portals."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Final

from ruvector.bridge import codec, oids
from ruvector.bridge.backend import CancelFlag, Column, RowSet, Value
from ruvector.bridge.channel import Channel
from ruvector.bridge.dispatch import Dispatcher
from ruvector.bridge.fields import decode
from ruvector.bridge.grammar import parse
from ruvector.bridge.rows import RowEncoder, row_encoder
from ruvector.bridge.state import IDLE, REPORTED, SessionState
from ruvector.bridge.statements import Call, Declare, Fetch, Remote, RemoteCall, SessionCommand, Statement, Verb
from ruvector.errors import LimitExceeded, ProtocolViolation, SessionProblem, SyntaxProblem
from ruvector.limits import HELD_BYTES_MAX, PORTALS_MAX, PREPARED_STATEMENTS_MAX, ROWS_CHUNK

# The private statements of the bridge, the most frequent first.
_PRIVATE: Final = tuple((f"{kind} ".encode(), kind) for kind in Remote)


@dataclass(frozen=True, slots=True)
class Prepared:
    """A prepared statement; no statement at all for an empty text."""

    statement: Statement | None
    type_oids: tuple[int, ...]
    columns: tuple[Column, ...] | None  # None: it gives no rows
    size: int  # bytes of its message


@dataclass(slots=True)
class Portal:
    """A prepared statement with its values, and the rows that were not fetched yet."""

    prepared: Prepared
    parameters: tuple[Value, ...]
    result_formats: tuple[int, ...]
    size: int
    rows: Iterator[Sequence[object]] | None = None
    is_done: bool = False
    is_held: bool = False  # a cursor WITH HOLD outlives its transaction


class Queries:
    """Runs the statements of one session and writes their answers; errors are raised, not answered."""

    def __init__(self, channel: Channel, state: SessionState, dispatcher: Dispatcher, cancel: CancelFlag) -> None:
        self._channel = channel
        self._state = state
        self._dispatcher = dispatcher
        self._cancel = cancel
        self._prepared: dict[str, Prepared] = {}
        self._portals: dict[str, Portal] = {}
        self.label = ""  # what the present request does, for the log; never holds values

    # Simple queries ---------------------------------------------------------------------------------------------

    def simple(self, body: bytes) -> None:
        """Run a Query message: the bridge's private statements by their prefix, all others by the grammar."""
        for prefix, kind in _PRIVATE:
            if body.startswith(prefix) and body[-1] == 0:
                self._remote(kind, body[len(prefix) : -1])
                return
        self.label = "query"
        statements = parse(codec.parse_query(body))
        self._portals.pop("", None)
        if not statements:
            self._channel.write(codec.EMPTY_QUERY_RESPONSE)
        for statement in statements:
            self._run_simple(statement)

    def _remote(self, kind: Remote, payload: bytes) -> None:
        self.label = kind
        self._state.check_usable()
        self._write_answer(self._dispatcher.remote(kind, payload, self._cancel))

    def _run_simple(self, statement: Statement) -> None:
        if isinstance(statement, SessionCommand):
            if statement.verb is Verb.SHOW:
                self._write_answer(self._show(statement), tag=Verb.SHOW)
            else:
                self._command(statement)
            return
        self._state.check_usable()
        if isinstance(statement, Declare):
            self._declare(statement, (), size=0)
            return
        if isinstance(statement, Fetch):
            portal = self._find_portal(statement.cursor)
            encoder = row_encoder(portal.prepared.columns or (), portal.result_formats)
            if not statement.is_move:
                self._channel.write(encoder.description)
            self._fetch_cursor(statement, encoder)
            return
        self.label = _label(statement)
        self._write_answer(self._dispatcher.run(statement, (), self._cancel))

    # Cursors: portals with a name that SQL knows ----------------------------------------------------------------

    def _declare(self, statement: Declare, parameters: tuple[Value, ...], *, size: int) -> None:
        """Run the query of a cursor and keep its rows."""
        if self._state.transaction == IDLE and not statement.is_held:
            raise SessionProblem("DECLARE CURSOR can only be used in transaction blocks", sqlstate="25P01")
        self._check_new_portal(statement.name)
        self.label = _label(statement.query)
        answer = self._dispatcher.run(statement.query, parameters, self._cancel)
        formats = (1,) * len(answer.columns) if statement.is_binary else ()
        prepared = Prepared(statement.query, (), answer.columns, 0)
        self._portals[statement.name] = Portal(
            prepared, (), formats, size, iter(answer.rows), is_done=True, is_held=statement.is_held
        )
        self._channel.write(codec.command_complete("DECLARE CURSOR"))

    def _fetch_cursor(self, statement: Fetch, encoder: RowEncoder) -> None:
        """Send the next rows of a cursor, or pass over them."""
        self.label = "cursor"
        portal = self._find_portal(statement.cursor)
        rows = iter(portal.rows or ())
        wanted = rows if statement.rows_max is None else islice(rows, statement.rows_max)
        count = sum(1 for _ in wanted) if statement.is_move else self._write_rows(wanted, encoder)
        self._channel.write(codec.command_complete(f"{'MOVE' if statement.is_move else 'FETCH'} {count}"))

    def _write_answer(self, answer: RowSet, *, tag: str = "") -> None:
        encoder = row_encoder(answer.columns, ())
        self._channel.write(encoder.description)
        count = self._write_rows(answer.rows, encoder)
        self._channel.write(codec.command_complete(tag or f"SELECT {count}"))

    def _write_rows(self, rows: Iterable[Sequence[object]], encoder: RowEncoder) -> int:
        """Write all rows, a bounded number at a time; return how many there were."""
        iterator = iter(rows)
        count = 0
        chunk = list(islice(iterator, ROWS_CHUNK))
        while chunk:
            self._channel.write(encoder.encode(chunk))
            count += len(chunk)
            if len(chunk) < ROWS_CHUNK:
                break
            self._cancel.check()
            chunk = list(islice(iterator, ROWS_CHUNK))
        return count

    # Session statements -----------------------------------------------------------------------------------------

    def _command(self, command: SessionCommand) -> None:
        effect = self._state.apply(command)
        if command.verb is Verb.DEALLOCATE:
            self._deallocate(command.name)
        if command.verb is Verb.DISCARD and command.name == "all":
            self._prepared.clear()
        if command.verb is Verb.CLOSE:
            self._close_cursor(command.name)
        if command.verb is Verb.DISCARD and command.name == "all":
            self._portals.clear()
        elif effect.ends_transaction:
            self._drop_portals()
        if effect.warning is not None:
            sqlstate, text = effect.warning
            self._channel.write(codec.notice_response(text, sqlstate=sqlstate))
        for name in effect.changed:
            if name in REPORTED and name in self._state.settings:
                self._channel.write(codec.parameter_status(REPORTED[name], self._state.settings[name]))
        self._channel.write(codec.command_complete(effect.tag))

    def _show(self, command: SessionCommand) -> RowSet:
        return RowSet((Column(command.name, oids.TEXT),), ((self._state.show(command.name),),))

    def _deallocate(self, name: str) -> None:
        if not name:
            self._prepared.clear()
        elif self._prepared.pop(name, None) is None:
            raise SessionProblem(f'prepared statement "{name[:63]}" does not exist', sqlstate="26000")

    # Prepared statements and portals ----------------------------------------------------------------------------

    def parse(self, body: bytes) -> None:
        """Carry out a Parse message; the unnamed statement is replaced, a named one must be new."""
        message = codec.parse_parse(body)
        if message.name and message.name in self._prepared:
            raise SessionProblem(f'prepared statement "{message.name[:63]}" already exists', sqlstate="42P05")
        if len(self._prepared) >= PREPARED_STATEMENTS_MAX:
            raise LimitExceeded(
                f"more than {PREPARED_STATEMENTS_MAX} prepared statements", hint="Use DEALLOCATE ALL or fewer of them."
            )
        self._prepared.pop(message.name, None)
        self._check_held(len(body))
        statement = _parse_one(message.text)
        self._check_transaction(statement)
        type_oids = message.type_oids
        columns: tuple[Column, ...] | None = None
        if isinstance(statement, SessionCommand):
            columns = (Column(statement.name, oids.TEXT),) if statement.verb is Verb.SHOW else None
        elif isinstance(statement, Fetch):
            columns = None if statement.is_move else self._find_portal(statement.cursor).prepared.columns
        elif isinstance(statement, Declare):
            type_oids = self._dispatcher.parameter_types(statement, type_oids)
        elif statement is not None:
            type_oids = self._dispatcher.parameter_types(statement, type_oids)
            columns = self._dispatcher.columns(statement, type_oids)
        self._prepared[message.name] = Prepared(statement, type_oids, columns, len(body))
        self._channel.write(codec.PARSE_COMPLETE)

    def bind(self, body: bytes) -> None:
        """Carry out a Bind message: decode the values by the types of the statement's parameters."""
        message = codec.parse_bind(body)
        prepared = self._find_prepared(message.statement)
        self._check_transaction(prepared.statement)
        if len(message.values) != len(prepared.type_oids):
            raise ProtocolViolation(
                f"bind message supplies {len(message.values)} parameters, but prepared statement "
                f'"{message.statement[:63]}" requires {len(prepared.type_oids)}'
            )
        self._check_new_portal(message.portal)
        self._check_held(len(body))
        formats = message.formats
        if len(formats) != len(message.values):
            formats = (formats[0] if formats else 0,) * len(message.values)
        parameters = tuple(
            decode(value, type_oid=type_oid, binary=code == 1)
            for value, type_oid, code in zip(message.values, prepared.type_oids, formats, strict=True)
        )
        self._portals[message.portal] = Portal(prepared, parameters, message.result_formats, len(body))
        self._channel.write(codec.BIND_COMPLETE)

    def describe(self, body: bytes) -> None:
        """Carry out a Describe message; nothing is run for it."""
        kind, name = codec.parse_named(body)
        if kind == "S":
            prepared = self._find_prepared(name)
            formats: tuple[int, ...] = ()
            self._channel.write(codec.parameter_description(prepared.type_oids))
        else:
            portal = self._find_portal(name)
            prepared, formats = portal.prepared, portal.result_formats
        columns = prepared.columns
        self._channel.write(codec.NO_DATA if columns is None else row_encoder(columns, formats).description)

    def execute(self, body: bytes) -> None:
        """Carry out an Execute message: run the portal the first time, then send its rows."""
        name, rows_max = codec.parse_execute(body)
        portal = self._find_portal(name)
        statement = portal.prepared.statement
        if statement is None:
            self._channel.write(codec.EMPTY_QUERY_RESPONSE)
            return
        if portal.is_done and (portal.rows is None):
            raise SessionProblem(f'portal "{name[:63]}" cannot be run again', sqlstate="55000")
        if isinstance(statement, SessionCommand) and statement.verb is not Verb.SHOW:
            portal.is_done = True
            self._command(statement)
            return
        if isinstance(statement, Declare):
            portal.is_done = True
            self._state.check_usable()
            self._declare(statement, portal.parameters, size=portal.size)
            return
        encoder = row_encoder(portal.prepared.columns or (), portal.result_formats)
        if isinstance(statement, Fetch):
            portal.is_done = True
            self._state.check_usable()
            self._fetch_cursor(statement, encoder)
            return
        if portal.rows is None:
            portal.rows = iter(self._run_portal(statement, portal))
            portal.is_done = True
        self._fetch(portal, encoder, rows_max=rows_max)

    def _run_portal(self, statement: Statement, portal: Portal) -> Iterable[Sequence[object]]:
        if isinstance(statement, SessionCommand):
            return self._show(statement).rows
        self.label = _label(statement)
        self._state.check_usable()
        return self._dispatcher.run(statement, portal.parameters, self._cancel).rows

    def _fetch(self, portal: Portal, encoder: RowEncoder, *, rows_max: int) -> None:
        rows = portal.rows or iter(())
        count = self._write_rows(islice(rows, rows_max) if rows_max else rows, encoder)
        if rows_max and count == rows_max:
            self._channel.write(codec.PORTAL_SUSPENDED)
            return
        is_show = isinstance(portal.prepared.statement, SessionCommand)
        self._channel.write(codec.command_complete(Verb.SHOW if is_show else f"SELECT {count}"))

    def close(self, body: bytes) -> None:
        """Carry out a Close message; closing what does not exist is no error."""
        kind, name = codec.parse_named(body)
        if kind == "S":
            self._prepared.pop(name, None)
        else:
            self._portals.pop(name, None)
        self._channel.write(codec.CLOSE_COMPLETE)

    def sync(self) -> None:
        """End the implicit transaction of a group of messages: portals live on in an open block only."""
        if self._state.transaction == IDLE:
            self._drop_portals()

    def fail(self) -> None:
        """Note that the present request failed: its transaction and portals are gone."""
        self._state.fail()
        self._drop_portals()

    def _drop_portals(self) -> None:
        """End the portals of a transaction; held cursors stay."""
        self._portals = {name: portal for name, portal in self._portals.items() if portal.is_held}

    def _close_cursor(self, name: str) -> None:
        if not name:
            self._portals.clear()
        elif self._portals.pop(name, None) is None:
            raise SessionProblem(f'cursor "{name[:63]}" does not exist', sqlstate="34000")

    def _check_new_portal(self, name: str) -> None:
        """Make room for a portal; the unnamed one is replaced, a named one must be new."""
        if name and name in self._portals:
            raise SessionProblem(f'cursor "{name[:63]}" already exists', sqlstate="42P03")
        if len(self._portals) >= PORTALS_MAX:
            raise LimitExceeded(f"more than {PORTALS_MAX} open portals")
        self._portals.pop(name, None)

    def _check_transaction(self, statement: Statement | None) -> None:
        ending = (Verb.COMMIT, Verb.ROLLBACK, Verb.ROLLBACK_TO)
        if statement is not None and not (isinstance(statement, SessionCommand) and statement.verb in ending):
            self._state.check_usable()

    def _check_held(self, size: int) -> None:
        held = sum(each.size for each in self._prepared.values()) + sum(each.size for each in self._portals.values())
        if held + size > HELD_BYTES_MAX:
            raise LimitExceeded(f"prepared statements and portals hold more than {HELD_BYTES_MAX} bytes")

    def _find_prepared(self, name: str) -> Prepared:
        if name not in self._prepared:
            raise SessionProblem(f'prepared statement "{name[:63]}" does not exist', sqlstate="26000")
        return self._prepared[name]

    def _find_portal(self, name: str) -> Portal:
        if name not in self._portals:
            raise SessionProblem(f'portal "{name[:63]}" does not exist', sqlstate="34000")
        return self._portals[name]


def _label(statement: Statement) -> str:
    """Return what the log calls a statement."""
    return statement.function if isinstance(statement, Call) else "query"


def _parse_one(text: str) -> Statement | None:
    """Return the only statement of a text, None for an empty text."""
    for kind in Remote:
        if text.startswith(f"{kind} "):
            return RemoteCall(kind, text[len(kind) + 1 :].encode())
    statements = parse(text)
    if len(statements) > 1:
        raise SyntaxProblem("cannot insert multiple commands into a prepared statement")
    return statements[0] if statements else None
