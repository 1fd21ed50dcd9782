"""A running endpoint with a small backend in memory; no database is needed."""

import threading

import numpy as np
import pytest

from ruvector.bridge import (
    CALL_COLUMNS,
    SEARCH_COLUMNS,
    Access,
    Column,
    Login,
    RowSet,
    ScramVerifier,
    Server,
    Signature,
    oids,
)
from ruvector.errors import CollectionNotFound, FunctionNotFound, InvalidParameter, InvalidVector, PermissionDenied

PASSWORD = "pencil secret"
MAC = "a" * 64
RESULT_COLUMNS = (
    Column("id", oids.TEXT),
    Column("distance", oids.FLOAT4),
    Column("score", oids.FLOAT4),
    Column("tier", oids.TEXT),
    Column("is_exact", oids.BOOL),
)
TYPES_COLUMNS = (
    Column("b", oids.BOOL),
    Column("i2", oids.INT2),
    Column("i4", oids.INT4),
    Column("i8", oids.INT8),
    Column("f4", oids.FLOAT4),
    Column("f8", oids.FLOAT8),
    Column("t", oids.TEXT),
    Column("j", oids.JSONB),
    Column("ta", oids.TEXT_ARRAY),
    Column("ra", oids.FLOAT4_ARRAY),
    Column("nothing", oids.TEXT),
)
TYPES_ROW = (
    True,
    -7,
    2_000_000_000,
    -9_000_000_000_000_000_000,
    0.1,
    1 / 3,
    'a "quoted" ü',
    {"k": [1, None, "ü"]},
    ["plain", 'with "quotes", comma', "", None, "NULL", "back\\slash", "{brace}"],
    [0.5, -1e20, 0.1],
    None,
)

SEARCH_ROW = (None, "7:7:", "{0,1,2}", 1 / 3, "{}", None)

SIGNATURES = {
    "ruvector_search": Signature(
        (
            Column("collection", oids.TEXT),
            Column("query", oids.TEXT),
            Column("k", oids.INT4),
            Column("filter", oids.JSONB),
        ),
        RESULT_COLUMNS,
    ),
    "ruvector_version": Signature((), (Column("ruvector_version", oids.TEXT),)),
    "ruvector_echo": Signature((Column("value", oids.TEXT),), (Column("ruvector_echo", oids.TEXT),)),
    "ruvector_types": Signature((), TYPES_COLUMNS),
    "ruvector_count_to": Signature((Column("last", oids.INT4),), (Column("n", oids.INT4),)),
    "ruvector_wait": Signature((Column("timeout_ms", oids.INT4),), (Column("ruvector_wait", oids.BOOL),)),
    "ruvector_bug": Signature((), (Column("ruvector_bug", oids.TEXT),)),
    "ruvector_repair": Signature((), (Column("ruvector_repair", oids.BOOL),)),
}


class MemoryBackend:
    """Three logins and one collection, searched exactly with numpy: the smallest real Backend."""

    def __init__(self, *, rows=100, dims=3):
        self.vectors = np.arange(rows * dims, dtype=np.float32).reshape(rows, dims)
        verifier = ScramVerifier.from_password(PASSWORD)
        self.logins = {str(access): Login(str(access), access, verifier) for access in Access}
        self.waiting = threading.Event()  # set while a request waits to be cancelled
        self.cancelled = threading.Event()  # set when a waiting request was told to stop
        self.payloads = []

    def authenticate(self, login):
        return self.logins.get(login)

    def rpc_search(self, payload, cancel):
        self.payloads.append(payload)
        if b"fail" in payload:
            raise CollectionNotFound("nowhere")
        if b"wait" in payload:
            self._wait(cancel)
        return RowSet(SEARCH_COLUMNS, [SEARCH_ROW])

    def rpc_call(self, payload, cancel):
        self.payloads.append(payload)
        return RowSet(CALL_COLUMNS, [("v", payload[64:].decode(), None)])

    def rpc_sample(self, payload):
        self.payloads.append(payload)
        return RowSet(CALL_COLUMNS, [])

    def describe(self, function):
        if function not in SIGNATURES:
            raise FunctionNotFound(f"function {function} does not exist")
        return SIGNATURES[function]

    def call(self, function, args, kwargs, *, access, cancel):
        if function not in SIGNATURES:
            raise FunctionNotFound(f"function {function} does not exist")
        names = [parameter.name for parameter in SIGNATURES[function].parameters]
        if len(args) > len(names) or not set(kwargs) <= set(names[len(args) :]):
            raise FunctionNotFound(f"function {function} does not take these arguments")
        arguments = dict(zip(names, args, strict=False)) | kwargs
        return getattr(self, function.removeprefix("ruvector_"))(arguments, access=access, cancel=cancel)

    def search(self, arguments, *, access, cancel):
        if arguments["collection"] != "c":
            raise CollectionNotFound(arguments["collection"])
        query = arguments["query"]
        if isinstance(query, str):
            try:
                query = [float(number) for number in query.strip("[]").split(",")]
            except ValueError:
                raise InvalidVector("the vector cannot be read") from None
        k = int(arguments.get("k", 10))
        if k < 1:
            raise InvalidParameter(f"k is {k}, at least 1 is needed", detail="k counts rows")
        distances = np.sqrt(((self.vectors - np.asarray(query, dtype=np.float32)) ** 2).sum(axis=1))
        nearest = np.argsort(distances, kind="stable")[:k]
        return RowSet(
            RESULT_COLUMNS,
            [(str(row), float(distances[row]), float(1 / (1 + distances[row])), "hot", True) for row in nearest],
        )

    def version(self, arguments, *, access, cancel):
        return RowSet((Column("ruvector_version", oids.TEXT),), [("memory",)])

    def echo(self, arguments, *, access, cancel):
        return RowSet((Column("ruvector_echo", oids.TEXT),), [(repr(arguments["value"]),)])

    def types(self, arguments, *, access, cancel):
        return RowSet(TYPES_COLUMNS, [TYPES_ROW])

    def count_to(self, arguments, *, access, cancel):
        return RowSet((Column("n", oids.INT4),), ((number,) for number in range(1, int(arguments["last"]) + 1)))

    def wait(self, arguments, *, access, cancel):
        if "timeout_ms" in arguments:
            cancel.expire_within(int(arguments["timeout_ms"]) / 1000)
        self._wait(cancel)
        return RowSet((Column("ruvector_wait", oids.BOOL),), [(True,)])

    def bug(self, arguments, *, access, cancel):
        raise ValueError("a secret value: 42")

    def repair(self, arguments, *, access, cancel):
        if access is not Access.ADMIN:
            raise PermissionDenied("permission denied for function ruvector_repair")
        return RowSet((Column("ruvector_repair", oids.BOOL),), [(True,)])

    def _wait(self, cancel):
        """Wait as a kernel does: look at the flag between pieces of work, 20 s at most."""
        self.waiting.set()
        pause = threading.Event()
        for _ in range(2_000):
            if cancel.is_set:
                self.cancelled.set()
            cancel.check()
            pause.wait(0.01)


@pytest.fixture
def bridge_backend():
    return MemoryBackend()


@pytest.fixture
def bridge_server(bridge_backend, tmp_path_factory):
    """An endpoint on a free TCP port and a Unix socket of the same number."""
    folder = tmp_path_factory.mktemp("b")
    with Server(bridge_backend, ["127.0.0.1:0", f"unix:{folder}"], port=0) as server:
        yield server
    assert server.connections == 0


def tcp_dsn(server, *, user="user", password=PASSWORD, **more):
    address = next(each for each in server.addresses if not each.is_unix)
    options = {"host": address.host, "port": address.port, "user": user, "dbname": "ruvector", **more}
    if password is not None:
        options["password"] = password
    return " ".join(f"{name}='{value}'" for name, value in options.items())


def unix_dsn(server, *, user="admin", password=None, **more):
    address = next(each for each in server.addresses if each.is_unix)
    options = {"host": address.host, "port": address.port, "user": user, "dbname": "ruvector", **more}
    if password is not None:
        options["password"] = password
    return " ".join(f"{name}='{value}'" for name, value in options.items())
