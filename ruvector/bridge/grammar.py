"""Read SQL text as statements of the closed grammar; everything else is refused with a hint."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from ruvector.bridge.catalog import catalog_query
from ruvector.bridge.statements import (
    ArrayOf,
    Builtin,
    Call,
    Cast,
    CatalogQuery,
    Constants,
    Declare,
    Expression,
    Fetch,
    Literal,
    Parameter,
    SelectItem,
    SessionCommand,
    Statement,
    Verb,
    default_label,
)
from ruvector.bridge.tokens import Token, TokenKind, number_of, tokenize
from ruvector.errors import LimitExceeded, SyntaxProblem, UnsupportedStatement, UserError
from ruvector.limits import ARGUMENTS_MAX, ARRAY_DEPTH_MAX, CAST_DEPTH_MAX, STATEMENTS_MAX

_NAMES: Final = (TokenKind.NAME, TokenKind.QUOTED)
_CLAUSES: Final = frozenset(
    {
        *("from", "where", "order", "group", "having", "limit", "offset", "fetch", "for", "union", "intersect"),
        *("except", "window", "join", "cross", "inner", "left", "right", "full", "natural", "on", "using", "as"),
        *("into", "with", "tablesample"),
    }
)
_CONSTANT_WORDS: Final = {"true": Literal(value=True), "false": Literal(value=False), "null": Literal(None)}
_BUILTIN_WORDS: Final = frozenset({"current_user", "session_user", "user", "current_catalog", "current_schema"})
_BUILTIN_FUNCTIONS: Final = frozenset(
    {"version", "current_schema", "current_database", "pg_advisory_unlock_all", "pg_backend_pid", "pg_is_in_recovery"}
)
_TWO_WORD_TYPES: Final = {("double", "precision"), ("character", "varying"), ("bit", "varying")}


def parse(text: str) -> list[Statement]:
    """Return the statements of a text, which semicolons separate; none for an empty text.

    Raises SyntaxProblem for text that is no SQL and UnsupportedStatement for SQL outside the grammar.
    """
    parser = _Parser(tokenize(text))
    statements: list[Statement] = []
    while not parser.is_at_end():
        if parser.accept_symbol(";"):
            continue
        if len(statements) == STATEMENTS_MAX:
            raise LimitExceeded(f"more than {STATEMENTS_MAX} statements in one query")
        statements.append(parser.statement())
        if not parser.is_at_end() and not parser.accept_symbol(";"):
            raise parser.refusal()
    return statements


class _Parser:
    """Walks the tokens once, without going back."""

    def __init__(self, tokens: list[Token]) -> None:
        self._tokens = tokens
        self._position = 0

    # Single tokens ----------------------------------------------------------------------------------------------

    @property
    def _token(self) -> Token:
        return self._tokens[self._position]

    def _take(self) -> Token:
        token = self._tokens[self._position]
        if token.kind is not TokenKind.END:
            self._position += 1
        return token

    def is_at_end(self) -> bool:
        """Tell whether every token was used."""
        return self._token.kind is TokenKind.END

    def _is_at_stop(self) -> bool:
        return self.is_at_end() or self._is_symbol(";")

    def _is_symbol(self, symbol: str) -> bool:
        return self._token.kind is TokenKind.SYMBOL and self._token.value == symbol

    def accept_symbol(self, symbol: str) -> bool:
        """Use the next token if it is this symbol."""
        found = self._is_symbol(symbol)
        self._position += found
        return found

    def _accept_word(self, *words: str) -> str:
        """Use the next token if it is one of these keywords; return it, or an empty text."""
        token = self._token
        if token.kind is TokenKind.NAME and token.value in words:
            self._position += 1
            return token.value
        return ""

    def _expect_symbol(self, symbol: str) -> None:
        if not self.accept_symbol(symbol):
            raise self.refusal()

    def _expect_word(self, word: str) -> None:
        if not self._accept_word(word):
            raise self.refusal()

    def _expect_name(self) -> str:
        if self._token.kind not in _NAMES:
            raise self.refusal()
        return self._take().value

    def refusal(self) -> UserError:
        """Return the error for the present token: a known clause is unsupported, everything else a syntax error."""
        token = self._token
        if token.kind is TokenKind.END:
            return SyntaxProblem("syntax error at end of input")
        if token.kind is TokenKind.NAME and token.value in _CLAUSES:
            return UnsupportedStatement(f"{token.value.upper()} is not supported here (character {token.position + 1})")
        if token.kind is TokenKind.SYMBOL and token.value not in ";":
            return UnsupportedStatement(
                f'"{token.value}" is not supported here (character {token.position + 1}): arguments are constants or '
                "parameters"
            )
        return SyntaxProblem(f'syntax error at or near "{token.value[:40]}" (character {token.position + 1})')

    # Statements -------------------------------------------------------------------------------------------------

    def statement(self) -> Statement:
        """Read one statement, up to its semicolon."""
        token = self._take()
        word = token.value if token.kind is TokenKind.NAME else ""
        if word in ("select", "with"):
            return self._query(word)
        commands: dict[str, Callable[[], Statement]] = {
            "declare": self._declare,
            "fetch": lambda: self._fetch(is_move=False),
            "move": lambda: self._fetch(is_move=True),
            "close": lambda: SessionCommand(Verb.CLOSE, self._name_or_all()),
            "unlisten": self._unlisten,
            "begin": lambda: self._transaction(Verb.BEGIN),
            "start": self._start,
            "commit": lambda: self._transaction(Verb.COMMIT),
            "end": lambda: self._transaction(Verb.COMMIT),
            "rollback": self._rollback,
            "abort": lambda: self._transaction(Verb.ROLLBACK),
            "savepoint": lambda: SessionCommand(Verb.SAVEPOINT, self._expect_name()),
            "release": self._release,
            "set": self._set,
            "reset": lambda: SessionCommand(Verb.RESET, self._setting_name(allow_all=True)),
            "show": lambda: SessionCommand(Verb.SHOW, self._setting_name(allow_all=False)),
            "discard": self._discard,
            "deallocate": self._deallocate,
        }
        if word not in commands:
            if not word:
                self._position -= 1
                raise self.refusal()
            raise UnsupportedStatement(f"{word.upper()[:40]} is not supported")
        return commands[word]()

    def _transaction(self, verb: Verb) -> SessionCommand:
        """Read the rest of BEGIN, COMMIT and their like; isolation levels make no difference here."""
        self._accept_word("work", "transaction")
        while self._token.kind is TokenKind.NAME or self._is_symbol(","):
            self._take()
        return SessionCommand(verb)

    def _start(self) -> SessionCommand:
        self._expect_word("transaction")
        return self._transaction(Verb.START_TRANSACTION)

    def _rollback(self) -> SessionCommand:
        self._accept_word("work", "transaction")
        if self._accept_word("to"):
            self._accept_word("savepoint")
            return SessionCommand(Verb.ROLLBACK_TO, self._expect_name())
        return self._transaction(Verb.ROLLBACK)

    def _release(self) -> SessionCommand:
        self._accept_word("savepoint")
        return SessionCommand(Verb.RELEASE, self._expect_name())

    def _discard(self) -> SessionCommand:
        word = self._accept_word("all", "plans", "sequences", "temp", "temporary")
        if not word:
            raise self.refusal()
        return SessionCommand(Verb.DISCARD, word)

    def _deallocate(self) -> SessionCommand:
        self._accept_word("prepare")
        return SessionCommand(Verb.DEALLOCATE, self._name_or_all())

    def _name_or_all(self) -> str:
        """Read a name; ALL is the empty name."""
        return "" if self._accept_word("all") else self._expect_name()

    def _unlisten(self) -> SessionCommand:
        if not self.accept_symbol("*"):
            self._expect_name()
        return SessionCommand(Verb.UNLISTEN)

    # Cursors ----------------------------------------------------------------------------------------------------

    def _declare(self) -> Declare:
        name = self._expect_name()
        is_binary = False
        while word := self._accept_word("binary", "insensitive", "asensitive", "no", "scroll"):
            is_binary |= word == "binary"
            if word == "no":
                self._expect_word("scroll")
            elif word == "scroll":
                raise UnsupportedStatement("SCROLL is not supported: a cursor goes forwards only")
        self._expect_word("cursor")
        held = self._accept_word("with", "without")
        if held:
            self._expect_word("hold")
        self._expect_word("for")
        query = self._query(self._take().value)
        return Declare(name, query, is_binary=is_binary, is_held=held == "with")

    def _fetch(self, *, is_move: bool) -> Fetch:
        """Read a forward direction, FROM or IN, and the name of a cursor."""
        if word := self._accept_word("prior", "first", "last", "absolute", "relative", "backward"):
            raise UnsupportedStatement(f"{word.upper()} is not supported: a cursor goes forwards only")
        is_forward = bool(self._accept_word("forward"))
        rows_max: int | None = 1
        if self._accept_word("all"):
            rows_max = None
        elif self._token.kind is TokenKind.NUMBER:
            digits = self._take().value
            if not digits.isdigit() or len(digits) > 18:
                raise SyntaxProblem(f'a cursor cannot go "{digits[:40]}" rows')
            rows_max = int(digits)
        elif not is_forward:
            self._accept_word("next")
        self._accept_word("from", "in")
        return Fetch(self._expect_name(), rows_max, is_move)

    def _setting_name(self, *, allow_all: bool) -> str:
        """Read the name of a setting, also of two parts or words; ALL is the empty name where it is allowed."""
        if self._accept_word("time"):
            self._expect_word("zone")
            return "timezone"
        if self._accept_word("transaction"):
            self._expect_word("isolation")
            self._expect_word("level")
            return "transaction_isolation"
        name = self._expect_name().lower()
        if name == "all":
            if not allow_all:
                raise UnsupportedStatement("ALL is not supported here")
            return ""
        while self.accept_symbol("."):
            name += "." + self._expect_name().lower()
        return name

    def _set(self) -> SessionCommand:
        if self._accept_word("session") and self._accept_word("characteristics"):
            self._expect_word("as")
            self._expect_word("transaction")
            return self._transaction(Verb.SET)
        self._accept_word("local")
        if self._accept_word("transaction"):
            return self._transaction(Verb.SET)
        if self._accept_word("time"):
            self._expect_word("zone")
            return SessionCommand(Verb.SET, "timezone", self._setting_value())
        name = self._setting_name(allow_all=False)
        if not self.accept_symbol("=") and not self._accept_word("to"):
            raise UnsupportedStatement(f"SET {name.upper()[:40]} is not supported")
        return SessionCommand(Verb.SET, name, self._setting_value())

    def _setting_value(self) -> str | None:
        """Read the value of SET; None for DEFAULT, several values are joined as PostgreSQL does."""
        if self._accept_word("default"):
            return None
        values = [self._one_setting_value()]
        while self.accept_symbol(","):
            values.append(self._one_setting_value())
        return ", ".join(values)

    def _one_setting_value(self) -> str:
        sign = "-" if self.accept_symbol("-") else ""
        if self._token.kind in (TokenKind.END, TokenKind.SYMBOL, TokenKind.PARAMETER):
            raise self.refusal()
        return sign + self._take().value

    # SELECT -----------------------------------------------------------------------------------------------------

    def _query(self, word: str) -> Call | Constants | CatalogQuery:
        """Read what follows SELECT or WITH."""
        if found := catalog_query(self._tokens, self._position - 1):
            query, self._position = found
            return query
        if word != "select":
            raise UnsupportedStatement(f"{word.upper()[:40]} is not supported")
        return self._select()

    def _select(self) -> Call | Constants:
        if self._accept_word("distinct", "all"):
            raise UnsupportedStatement("DISTINCT and ALL are not supported")
        items = [self._select_item()]
        while self.accept_symbol(","):
            if len(items) == ARGUMENTS_MAX:
                raise LimitExceeded(f"more than {ARGUMENTS_MAX} columns in one select list")
            items.append(self._select_item())
        columns = tuple(each for each in items if isinstance(each, SelectItem))
        if self._accept_word("from"):
            if len(columns) != len(items):
                raise UnsupportedStatement("only columns of the function may be selected from it")
            return self._call_in_from(columns)
        calls = [each for each in items if isinstance(each, Call)]
        if columns:
            raise UnsupportedStatement(f'column "{columns[0].name}" needs FROM ruvector_<function>(...)')
        if not calls:
            return Constants(tuple(each for each in items if isinstance(each, tuple)))
        if len(items) > 1:
            raise UnsupportedStatement("a function must stand alone in a select list")
        return self._with_limit(calls[0])

    def _select_item(self) -> SelectItem | Call | tuple[str, Expression]:
        """Read ``*``, a column, a function call or a constant, each with its label."""
        if self.accept_symbol("*"):
            return SelectItem("*")
        token, following = self._token, self._tokens[min(self._position + 1, len(self._tokens) - 1)]
        is_name = token.kind in _NAMES and not self._is_constant_word(token, following)
        if not is_name:
            expression = self._expression(depth=0)
            return self._label() or default_label(expression), expression
        path = [self._expect_name()]
        while self.accept_symbol("."):
            path.append("*" if self.accept_symbol("*") else self._expect_name())
        if not self._is_symbol("("):
            return SelectItem(path[-1], self._label() or None)
        if path[-1] in _BUILTIN_FUNCTIONS:
            self._expect_symbol("(")
            self._expect_symbol(")")
            builtin = self._casts(Builtin(path[-1]))
            return self._label() or path[-1], builtin
        arguments, named = self._arguments()
        return Call(path[-1], arguments, named, None, self._label() or None)

    @staticmethod
    def _is_constant_word(token: Token, following: Token) -> bool:
        """Tell whether a name starts a constant instead of naming a column or a function."""
        if token.kind is TokenKind.QUOTED:
            return False
        if following.kind is TokenKind.STRING:  # a type in front of its text: vector '[1,2]'
            return True
        opens = following.kind is TokenKind.SYMBOL and following.value in ("(", "[")
        if token.value in ("array", "cast"):
            return opens
        return token.value in _CONSTANT_WORDS or (token.value in _BUILTIN_WORDS and not opens)

    def _label(self) -> str:
        """Read ``AS name`` or a bare name behind a column; an empty text when there is none."""
        if self._accept_word("as"):
            return self._expect_name()
        token = self._token
        if token.kind is TokenKind.QUOTED or (token.kind is TokenKind.NAME and token.value not in _CLAUSES):
            return self._take().value
        return ""

    def _call_in_from(self, items: tuple[SelectItem, ...]) -> Call:
        name = self._expect_name()
        while self.accept_symbol("."):
            name = self._expect_name()
        if not self._is_symbol("("):
            raise UnsupportedStatement(f'"{name[:63]}" is no function call; tables cannot be read here')
        arguments, named = self._arguments()
        label = self._label()
        labels: list[str] = []
        if label and self.accept_symbol("("):
            labels.append(self._expect_name())
            while self.accept_symbol(","):
                labels.append(self._expect_name())
            self._expect_symbol(")")
        call = Call(name, arguments, named, items, label or None, tuple(labels))
        return self._with_limit(call)

    def _with_limit(self, call: Call) -> Call:
        if not self._accept_word("limit"):
            if not self._is_at_stop():
                raise self.refusal()
            return call
        limit = None if self._accept_word("all") else self._expression(depth=0)
        if not self._is_at_stop():
            raise self.refusal()
        return Call(call.function, call.arguments, call.named, call.items, call.label, call.column_labels, limit)

    def _arguments(self) -> tuple[tuple[Expression, ...], tuple[tuple[str, Expression], ...]]:
        """Read the arguments in parentheses: positional ones, then named ones (``name => value``)."""
        self._expect_symbol("(")
        arguments: list[Expression] = []
        named: dict[str, Expression] = {}
        if self.accept_symbol(")"):
            return (), ()
        while len(arguments) + len(named) < ARGUMENTS_MAX:
            following = self._tokens[min(self._position + 1, len(self._tokens) - 1)]
            if self._token.kind in _NAMES and following.kind is TokenKind.SYMBOL and following.value in ("=>", ":="):
                name = self._take().value
                self._take()
                if name in named:
                    raise SyntaxProblem(f'argument name "{name[:63]}" used more than once')
                named[name] = self._expression(depth=0)
            elif named:
                raise SyntaxProblem("positional argument cannot follow named argument")
            else:
                arguments.append(self._expression(depth=0))
            if self.accept_symbol(")"):
                return tuple(arguments), tuple(named.items())
            self._expect_symbol(",")
        raise LimitExceeded(f"more than {ARGUMENTS_MAX} arguments")

    # Values -----------------------------------------------------------------------------------------------------

    def _expression(self, *, depth: int) -> Expression:
        """Read a constant, a parameter, an array or a cast of one."""
        if depth > CAST_DEPTH_MAX:
            raise LimitExceeded(f"values are nested more than {CAST_DEPTH_MAX} deep")
        token = self._token
        if token.kind is TokenKind.SYMBOL and token.value in ("-", "+"):
            return self._signed()
        if self.accept_symbol("("):
            inner = self._expression(depth=depth + 1)
            self._expect_symbol(")")
            return self._casts(inner)
        if token.kind is TokenKind.STRING:
            return self._casts(Literal(self._take().value))
        if token.kind is TokenKind.NUMBER:
            return self._casts(Literal(number_of(self._take().value)))
        if token.kind is TokenKind.PARAMETER:
            return self._casts(self._parameter())
        if token.kind is TokenKind.NAME:
            return self._casts(self._word_value(depth=depth))
        raise self.refusal()

    def _signed(self) -> Expression:
        sign = -1 if self._take().value == "-" else 1
        if self._token.kind is not TokenKind.NUMBER:
            raise self.refusal()
        return self._casts(Literal(sign * number_of(self._take().value)))

    def _parameter(self) -> Parameter:
        digits = self._take().value
        if len(digits) > 5 or not 1 <= int(digits) <= 65_535:
            raise SyntaxProblem(f"there is no parameter ${digits[:20]}")
        return Parameter(int(digits))

    def _word_value(self, *, depth: int) -> Expression:
        word = self._take().value
        if word in _CONSTANT_WORDS:
            return _CONSTANT_WORDS[word]
        if word in _BUILTIN_WORDS:
            return Builtin(word)
        if word == "array" and self._is_symbol("["):
            return self._array(depth=1)
        if word == "cast" and self.accept_symbol("("):
            operand = self._expression(depth=depth + 1)
            self._expect_word("as")
            type_name = self._type_name()
            self._expect_symbol(")")
            return Cast(operand, type_name)
        if self._is_symbol("("):
            raise UnsupportedStatement(f'function "{word[:63]}" is not supported inside an argument')
        if self._token.kind is TokenKind.STRING:  # date '2020-01-01' and the like: the type stands in front
            return Cast(Literal(self._take().value), word)
        raise UnsupportedStatement(f'"{word[:63]}" is not supported here: arguments are constants or parameters')

    def _array(self, *, depth: int) -> ArrayOf:
        if depth > ARRAY_DEPTH_MAX:
            raise LimitExceeded(f"arrays are nested more than {ARRAY_DEPTH_MAX} deep")
        self._expect_symbol("[")
        items: list[Expression] = []
        while not self._is_symbol("]"):
            if items:
                self._expect_symbol(",")
            if self._is_symbol("["):
                items.append(self._array(depth=depth + 1))
            elif self._token.kind is TokenKind.NAME and self._token.value == "array":
                self._take()
                items.append(self._casts(self._array(depth=depth + 1)))
            else:
                items.append(self._expression(depth=0))
        self._expect_symbol("]")
        return ArrayOf(tuple(items))

    def _casts(self, expression: Expression) -> Expression:
        for _ in range(CAST_DEPTH_MAX):
            if not self.accept_symbol("::"):
                return expression
            expression = Cast(expression, self._type_name())
        raise LimitExceeded(f"more than {CAST_DEPTH_MAX} casts of one value")

    def _type_name(self) -> str:
        """Read a type: schema and modifiers are dropped, any number of brackets becomes one pair."""
        name = self._expect_name()
        while self.accept_symbol("."):
            name = self._expect_name()
        if self._token.kind is TokenKind.NAME and (name, self._token.value) in _TWO_WORD_TYPES:
            name += " " + self._take().value
        if self.accept_symbol("("):
            while self._token.kind is TokenKind.NUMBER or self._is_symbol(","):
                self._take()
            self._expect_symbol(")")
        is_array = False
        while self.accept_symbol("["):
            if self._token.kind is TokenKind.NUMBER:
                self._take()
            self._expect_symbol("]")
            is_array = True
        return name.lower() + ("[]" if is_array else "")
