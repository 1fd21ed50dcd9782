"""Cut a SQL statement into tokens in one pass over its text."""

from __future__ import annotations

from enum import StrEnum
from typing import Final, NamedTuple

from ruvector.errors import SyntaxProblem, UnsupportedStatement

_SPACES: Final = frozenset(" \t\n\r\f\v")
_DIGITS: Final = frozenset("0123456789")
_NAME_START: Final = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_")
_NAME_REST: Final = _NAME_START | _DIGITS | {"$"}
_PAIRS: Final = frozenset({"::", "=>", ":=", "<=", ">=", "<>", "!=", "||"})
_ESCAPES: Final = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}
_OCTAL: Final = frozenset("01234567")
_HEX: Final = _DIGITS | frozenset("abcdefABCDEF")


class TokenKind(StrEnum):
    """What a token is."""

    NAME = "name"  # unquoted, folded to lower case
    QUOTED = "quoted"  # an identifier in double quotes
    STRING = "string"
    NUMBER = "number"
    PARAMETER = "parameter"  # $1; the value holds the digits
    SYMBOL = "symbol"
    END = "end"


class Token(NamedTuple):
    """One token; for strings and identifiers ``value`` is the content without quotes."""

    kind: TokenKind
    value: str
    position: int


def tokenize(text: str) -> list[Token]:
    """Return the tokens of a text, an END token last; raise SyntaxProblem for an unfinished quote or comment.

    The time is linear in the length of the text, which the size of a message bounds.
    """
    tokens: list[Token] = []
    position = 0
    while position < len(text):
        character = text[position]
        if character in _SPACES:
            position += 1
        elif character == "'":
            value, end = _string(text, position)
            tokens.append(Token(TokenKind.STRING, value, position))
            position = end
        elif character in _NAME_START or character > "\x7f":
            token, position = _word(text, position)
            tokens.append(token)
        elif character in _DIGITS or (character == "." and text[position + 1 : position + 2] in _DIGITS):
            end = _number_end(text, position)
            tokens.append(Token(TokenKind.NUMBER, text[position:end], position))
            position = end
        elif character == '"':
            value, end = _quoted_name(text, position)
            tokens.append(Token(TokenKind.QUOTED, value, position))
            position = end
        elif text.startswith("--", position):
            end = text.find("\n", position)
            position = len(text) if end < 0 else end
        elif text.startswith("/*", position):
            position = _comment_end(text, position)
        elif character == "$":
            token, position = _dollar(text, position)
            tokens.append(token)
        else:
            pair = text[position : position + 2]
            symbol = pair if pair in _PAIRS else character
            tokens.append(Token(TokenKind.SYMBOL, symbol, position))
            position += len(symbol)
    tokens.append(Token(TokenKind.END, "", len(text)))
    return tokens


def number_of(text: str) -> int | float:
    """Return a number token's value; only digits make an int."""
    if text.isdigit():
        if len(text) > 40:
            raise SyntaxProblem("a number has more than 40 digits")
        return int(text)
    return float(text)


def _string(text: str, start: int) -> tuple[str, int]:
    """Return the content of a standard string and the place after it; a doubled quote stands for one."""
    parts: list[str] = []
    position = start + 1
    end = text.find("'", position)
    while end >= 0:
        parts.append(text[position:end])
        if text[end + 1 : end + 2] != "'":
            return "".join(parts), end + 1
        parts.append("'")
        position = end + 2
        end = text.find("'", position)
    raise SyntaxProblem(f"unterminated quoted string at character {start + 1}")


def _word(text: str, start: int) -> tuple[Token, int]:
    """Return a name, or a string with a letter in front: E'..' with escapes, B'..' bits."""
    prefix = text[start] if text[start + 1 : start + 2] == "'" else ""
    if prefix in ("e", "E"):
        value, end = _escape_string(text, start + 1)
        return Token(TokenKind.STRING, value, start), end
    if prefix in ("b", "B"):
        value, end = _string(text, start + 1)
        if value.strip("01"):
            raise SyntaxProblem(f"a bit string holds other characters than 0 and 1 at character {start + 1}")
        return Token(TokenKind.STRING, value, start), end
    if prefix or text[start : start + 3] in ("u&'", "U&'", 'u&"', 'U&"'):
        raise UnsupportedStatement(f"this form of string is not supported at character {start + 1}")
    end = start + 1
    while end < len(text) and (text[end] in _NAME_REST or text[end] > "\x7f"):
        end += 1
    return Token(TokenKind.NAME, text[start:end].lower(), start), end


def _number_end(text: str, start: int) -> int:
    """Return the place after the digits, the fraction and the exponent of a number."""
    end = _digits_end(text, start)
    if text[end : end + 1] == ".":
        end = _digits_end(text, end + 1)
    if text[end : end + 1] in ("e", "E"):
        digits = end + 2 if text[end + 1 : end + 2] in ("+", "-") else end + 1
        if text[digits : digits + 1] in _DIGITS:
            end = _digits_end(text, digits)
    if end < len(text) and text[end] in _NAME_START:
        raise SyntaxProblem(f"trailing junk after a number at character {end + 1}")
    return end


def _digits_end(text: str, start: int) -> int:
    end = start
    while end < len(text) and text[end] in _DIGITS:
        end += 1
    return end


def _quoted_name(text: str, start: int) -> tuple[str, int]:
    parts: list[str] = []
    position = start + 1
    end = text.find('"', position)
    while end >= 0:
        parts.append(text[position:end])
        if text[end + 1 : end + 2] != '"':
            name = "".join(parts)
            if not name:
                raise SyntaxProblem(f"zero-length delimited identifier at character {start + 1}")
            return name, end + 1
        parts.append('"')
        position = end + 2
        end = text.find('"', position)
    raise SyntaxProblem(f"unterminated quoted identifier at character {start + 1}")


def _comment_end(text: str, start: int) -> int:
    """Return the place after a block comment; comments nest, as in PostgreSQL."""
    depth = 1
    position = start + 2
    while position < len(text):
        if text.startswith("*/", position):
            depth -= 1
            position += 2
            if depth == 0:
                return position
        elif text.startswith("/*", position):
            depth += 1
            position += 2
        else:
            position += 1
    raise SyntaxProblem(f"unterminated /* comment at character {start + 1}")


def _dollar(text: str, start: int) -> tuple[Token, int]:
    """Return a parameter ($1) or a dollar-quoted string ($tag$..$tag$)."""
    end = _digits_end(text, start + 1)
    if end > start + 1:
        return Token(TokenKind.PARAMETER, text[start + 1 : end], start), end
    while end < len(text) and (text[end] in _NAME_REST or text[end] > "\x7f") and text[end] != "$":
        end += 1
    if text[end : end + 1] != "$":
        raise SyntaxProblem(f'syntax error at or near "$" at character {start + 1}')
    tag = text[start : end + 1]
    close = text.find(tag, end + 1)
    if close < 0:
        raise SyntaxProblem(f"unterminated dollar-quoted string at character {start + 1}")
    return Token(TokenKind.STRING, text[end + 1 : close], start), close + len(tag)


def _escape_string(text: str, start: int) -> tuple[str, int]:
    """Return the content of an E'..' string, whose quote stands at ``start``, and the place after it."""
    parts: list[str] = []
    position = start + 1
    while position < len(text):
        character = text[position]
        if character == "'":
            if text[position + 1 : position + 2] != "'":
                return "".join(parts), position + 1
            parts.append("'")
            position += 2
        elif character == "\\":
            part, position = _escape(text, position + 1)
            parts.append(part)
        else:
            parts.append(character)
            position += 1
    raise SyntaxProblem(f"unterminated quoted string at character {start + 1}")


def _escape(text: str, position: int) -> tuple[str, int]:
    """Return what the escape, whose letter stands at ``position``, means, and the place after it."""
    letter = text[position : position + 1]
    if letter in ("u", "U"):
        size = 4 if letter == "u" else 8
        return _code_point(text[position + 1 : position + 1 + size], size=size, base=16), position + 1 + size
    if letter == "x" and text[position + 1 : position + 2] in _HEX:
        end = position + 2
        if text[end : end + 1] in _HEX and end < len(text):
            end += 1
        return _code_point(text[position + 1 : end], size=end - position - 1, base=16), end
    if letter in _OCTAL:
        end = position + 1
        while end < min(len(text), position + 3) and text[end] in _OCTAL:
            end += 1
        return _code_point(text[position:end], size=end - position, base=8), end
    return _ESCAPES.get(letter, letter), position + 1


def _code_point(digits: str, *, size: int, base: int) -> str:
    """Return the character of a number; only ASCII for one-byte escapes, which are bytes and not characters."""
    if len(digits) != size or any(digit not in _HEX for digit in digits):
        raise SyntaxProblem("invalid Unicode escape in a string")
    code = int(digits, base)
    is_byte = size < 4
    if code == 0 or code > 0x10FFFF or 0xD800 <= code <= 0xDFFF or (is_byte and code > 0x7F):
        raise SyntaxProblem(f"the escape {digits} in a string is not a character that can be used here")
    return chr(code)
