"""Every error of the product: one tree, each class with a PostgreSQL error code and a hint.

Takes: values that were wrong.  Gives: exceptions whose code, message, detail and hint reach the SQL caller.
"""

from __future__ import annotations


class RuvectorError(Exception):
    """Base of every error raised on purpose.

    ``sqlstate`` is the five-character PostgreSQL code that reaches SQL, ``hint`` the next step for the user,
    ``detail`` the values involved. ``exit_code`` is what the command line ends with.
    """

    sqlstate = "XX000"  # internal_error
    hint: str = ""
    exit_code = 1

    def __init__(self, message: str, *, detail: str = "", hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.detail = detail
        if hint is not None:
            self.hint = hint


class InternalError(RuvectorError):
    """Our own mistake: an ``ensure`` did not hold."""

    hint = "This is a bug in ruvector; please report it with the log of the sidecar."


class UserError(RuvectorError):
    """The caller gave something that cannot be used."""

    sqlstate = "22023"  # invalid_parameter_value


class InvalidParameter(UserError):
    """A parameter has a value outside its range or of the wrong kind."""


class InvalidVector(UserError):
    """A vector holds NaN or infinity, or is zero where the metric needs a direction."""

    hint = "Give finite numbers; under the cosine metric the vector must not be all zeros."


class DimensionMismatch(UserError):
    """A vector has another number of dimensions than the collection."""

    def __init__(self, *, expected: int, got: int) -> None:
        super().__init__(
            f"the vector has {got} dimensions, the collection has {expected}",
            hint=f"Give a vector with {expected} dimensions.",
        )


class CollectionNotFound(UserError):
    """No collection has this name."""

    sqlstate = "42704"  # undefined_object
    hint = "List them with SELECT * FROM ruvector_list_collections()."

    def __init__(self, name: str) -> None:
        super().__init__(f'collection "{name}" does not exist')


class FunctionNotFound(UserError):
    """No SQL function of the product has this name or these arguments."""

    sqlstate = "42883"  # undefined_function
    hint = "The functions are listed in sql/FUNCTIONS.md."


class UnsupportedStatement(UserError):
    """The sidecar's wire endpoint does not know this statement."""

    sqlstate = "0A000"  # feature_not_supported
    hint = "The sidecar answers SELECT * FROM ruvector_<function>(...) and session statements only."


class SyntaxProblem(UserError):
    """A statement or a value could not be parsed."""

    sqlstate = "42601"  # syntax_error


class PermissionDenied(UserError):
    """The role may not do this."""

    sqlstate = "42501"  # insufficient_privilege


class AuthenticationFailed(UserError):
    """The password proof was wrong, or the login does not exist."""

    sqlstate = "28P01"  # invalid_password


class LimitExceeded(UserError):
    """A fixed bound of the product was reached."""

    sqlstate = "54000"  # program_limit_exceeded


class TooManyConnections(UserError):
    """The endpoint already serves its maximum number of connections."""

    sqlstate = "53300"  # too_many_connections


class Cancelled(RuvectorError):
    """A cancel request or a deadline stopped the work."""

    sqlstate = "57014"  # query_canceled
    hint = "Raise statement_timeout or ruvector.timeout_ms if the work should be allowed to take longer."


class ProtocolViolation(RuvectorError):
    """A peer sent bytes that are not the PostgreSQL wire protocol."""

    sqlstate = "08P01"  # protocol_violation


class SessionProblem(UserError):
    """A request does not fit the state of its session; carries PostgreSQL's own code for that case."""

    def __init__(self, message: str, *, sqlstate: str, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.sqlstate = sqlstate


class InvalidText(UserError):
    """A text does not read as a value of its type."""

    sqlstate = "22P02"  # invalid_text_representation


class InvalidEncoding(UserError):
    """Bytes are not valid UTF-8, or the client asked for another encoding."""

    sqlstate = "22021"  # character_not_in_repertoire
    hint = "Set client_encoding to UTF8."


class NotLive(RuvectorError):
    """The mirror of a collection may not answer at the moment."""

    sqlstate = "55000"  # object_not_in_prerequisite_state
    hint = "See SELECT * FROM ruvector_consistency_status()."


class Flood(RuvectorError):
    """So much changed that reading the table again is cheaper than applying it."""

    sqlstate = "54000"
    hint = "Wait: the mirror is rebuilt from its table."


class SidecarUnreachable(RuvectorError):
    """No sidecar answers at the registered address."""

    sqlstate = "08001"  # sqlclient_unable_to_establish_sqlconnection
    hint = "Start it with: ruvector run"
    exit_code = 5


class DatabaseUnreachable(RuvectorError):
    """The database does not answer."""

    sqlstate = "08001"
    hint = "Check --dsn, RUVECTOR_DSN or the PG* environment variables."
    exit_code = 4


class EmbeddedServerFailed(DatabaseUnreachable):
    """The private PostgreSQL server could not be created, started or stopped."""

    hint = "The file server.log in its folder says more."


class DatabaseError(RuvectorError):
    """The database refused a statement; carries its own code, detail and hint."""

    def __init__(self, message: str, *, sqlstate: str, detail: str = "", hint: str = "") -> None:
        super().__init__(message, detail=detail, hint=hint)
        self.sqlstate = sqlstate


class NotInstalled(RuvectorError):
    """Schema ruvector is missing or older than this program."""

    sqlstate = "55000"
    hint = "Run: ruvector install"


class StoreError(RuvectorError):
    """A file of the index cannot be used."""

    sqlstate = "58030"  # io_error
    hint = "The files are a cache: remove the directory and the sidecar rebuilds it from the table."


class StoreDamaged(StoreError):
    """A file of the index is truncated, changed or foreign; it is never read past this point."""

    sqlstate = "XX001"  # data_corrupted


class StoreFormat(StoreError):
    """A file of the index was written by another format version or machine."""


class StaleOwner(RuvectorError):
    """Another sidecar took over this mirror; this one must stop writing."""

    sqlstate = "55000"
    hint = "Only one sidecar of a name may write checkpoints; stop the other one first."


def ensure(condition: object, message: str) -> None:
    """Stop with InternalError when something we rely on does not hold; stays on in production."""
    if not condition:
        raise InternalError(message)
