"""Every bound of the product: number, unit and reason; relations are checked at import."""

from __future__ import annotations

from ruvector.errors import ensure

KIBIBYTE = 1024
MEBIBYTE = 1024 * KIBIBYTE

DIMS_MAX = 16_000  # pgvector's own bound for vector and halfvec
BITS_MAX = 64_000  # pgvector's bound for an indexed bit column
SPARSE_DIMS_MAX = 1_000_000_000  # pgvector's bound for sparsevec
SPARSE_ELEMENTS_MAX = 16_000  # elements of one sparsevec that are not zero; pgvector's bound too
K_MAX = 10_000  # rows one search may return; more is an export, not a search
WANTED_MAX = 20_000  # candidates asked of the index before a search falls back to exact SQL
DIRTY_KEYS_MAX = 20_000  # unapplied changes a search overlays before it falls back to exact SQL
EF_MAX = 20_000  # same as WANTED_MAX: the beam never needs to be wider than the answer
BATCH_QUERIES_MAX = 1_000  # queries of one search_batch call
M_MIN, M_MAX = 2, 128  # links per node; hnswlib and pgvector accept 2..100, wider costs memory only
BUILD_PROGRESS_SECONDS = 0.2  # between two reports of a build; the time it may take to notice that it is to stop
SCAN_FACTOR = 10  # rows per candidate below which a scan is cheaper than a walk: M=16 visits 10 to 15
THREADS_MAX = 256  # workers of one build or of one call with many queries
TEXT_KEYS_KEPT = 10_000  # keys of deleted rows kept before they are forgotten in one go
EF_CONSTRUCTION_MAX = 2_000  # pgvector allows 1000; beyond 2000 builds gain nothing measurable

CHANGE_BATCH_ROWS_MAX = 4_096  # rows read and applied at once; 4,096 x 1,024-d f32 = 16 MiB
COPY_FIELDS_MAX = 1_600  # columns of a table; PostgreSQL's own bound
COPY_CHUNK_ROWS = 10_000  # rows of one COPY BINARY chunk of the first copy
COPY_CHUNK_BYTES = 64 * MEBIBYTE  # wide vectors get fewer rows per chunk
SPARSE_ROW_BYTES = 32 * KIBIBYTE  # what a sparse row is taken for there: most have far less, none more than four times
RECENT_CHANGES_MAX = 1_000_000  # (xid, key) pairs kept to answer older snapshots
CHECKPOINT_CHANGES = 100_000  # changes after which a generation is written even under load
CHECKPOINT_SECONDS = 60.0  # seconds after which pending changes are written to a generation
CHECKPOINT_SHARE_MAX = 0.1  # part of the time that may go into writing generations
COPY_SAVE_SECONDS = 10.0  # work that a kill during the first copy may cost
STATUS_SECONDS = 1.0  # pause between two status rows of a mirror that changes
LEASE_SECONDS = 6.0  # a sidecar that was not heard of for so long loses the right to answer to one that stands by
PULSE_SECONDS = 1.0  # pause between two signs of life; the database refuses to ask after 4 s of silence
HEARTBEAT_SECONDS = 30.0  # the same for one that does not
DRIFT_CHECK_SECONDS = 0.5  # pause between two looks at the definition of the table
VERIFY_DIFFERENCES_SHOWN = 20  # keys of each kind that verify names; it counts all
VERIFY_SLICE_ROWS = 8_192  # rows compared in one snapshot: the mirror applies nothing meanwhile, for about 50 ms
VERIFY_SLICE_BYTES = 16 * MEBIBYTE  # wide vectors get fewer rows per slice
VERIFY_BUCKET_ROWS = 64  # rows under one sum; a bucket that differs is read row by row
SCRUB_CYCLE_SECONDS = 600.0  # in this time the verification that always runs meets every row of a table, or in longer
SCRUB_SHARE_MAX = 0.01  # part of the time that it may take
RECONCILE_DIFFERENCES_MAX = 1_000  # rows that a comparison repairs whatever their share
RECONCILE_SHARE_MAX = 0.2  # of more rows that differ a new copy is cheaper: linked at once a row costs a fifth
EVENTS_KEPT = 1_000  # of each mirror; the oldest are forgotten
ALARM_SECONDS = 86_400  # doctor speaks of differences that were found and repaired for a day
TRIM_ROWS = 20_000  # changelog rows deleted in one statement

POLL_SECONDS_MIN = 0.01  # pause between reads of the changelog under load
POLL_SECONDS_MAX = 0.5  # the same when idle; a search never waits for it
COLLECTION_POLL_SECONDS = 0.5  # how often the sidecar looks for attached and detached collections

REQUEST_BYTES_MAX = 4 * MEBIBYTE  # one message on the wire: 1,000 queries of 1,024 dims in text is below it
BRIDGE_BYTES_MAX = 52 * MEBIBYTE  # the same from the database itself: a search may bring a million keys
STARTUP_BYTES_MAX = 10_000  # PostgreSQL's own bound for a startup packet
LOGIN_SECONDS_MAX = 5.0  # a client that does not log in by then is closed
CONNECTIONS_MAX = 400  # clients of the endpoint; two of each session where searches are sampled, of 100 by default
REQUEST_SECONDS_MAX = 60.0  # deadline of a request that names none
LONG_REQUEST_SECONDS_MAX = 3_600.0  # deadline a request may ask for when it checks whole tables
SEARCH_TIMEOUT_MS = 2_000  # default of ruvector.timeout_ms
PREPARED_STATEMENTS_MAX = 1_000  # named statements of one connection
SCRAM_ITERATIONS = 4_096  # RFC 7677's minimum, PostgreSQL's default

AUTH_BYTES_MAX = 4 * KIBIBYTE  # one message before the login is complete; libpq's are below 200 bytes
RECEIVE_BYTES = 64 * KIBIBYTE  # asked of the socket at once: a search of 16,000 dims needs one call
SEND_BYTES = 64 * KIBIBYTE  # an answer is sent in pieces of about this size
ROWS_CHUNK = 1_000  # rows encoded before the next look at the size of the answer
STATEMENTS_MAX = 100  # statements of one simple query
ARGUMENTS_MAX = 100  # PostgreSQL's FUNC_MAX_ARGS
ARRAY_DEPTH_MAX = 6  # PostgreSQL's MAXDIM
CAST_DEPTH_MAX = 8  # casts and signs on one value; real statements have one or two
HELD_BYTES_MAX = 32 * MEBIBYTE  # prepared statements and portals of one connection, as they were received
PORTALS_MAX = 1_000  # open portals of one connection
SAVEPOINTS_MAX = 1_000  # open savepoints of one connection
SETTINGS_MAX = 200  # values remembered from SET by one connection
PENDING_LOGINS_MAX = 32  # connections above CONNECTIONS_MAX that are still told why they are refused
WATCH_SECONDS = 0.05  # pause between looks at deadlines and vanished clients
SEND_SECONDS_MAX = 30.0  # a client that does not read its answer for so long is closed
SLOW_REQUEST_SECONDS = 1.0  # requests that took longer are logged
CLOSE_SECONDS_MAX = 5.0  # time sessions get to end when the endpoint closes

REGISTERED_SECONDS = 30.0  # how long an application believes that a collection is attached, or is not
ORDER_WRAPPERS_MAX = 8  # of an element of ORDER BY: label, reference to it, ASC, parentheses
IDENTIFIER_BYTES_MAX = 63  # PostgreSQL's NAMEDATALEN - 1
PAGE_ROWS = 64  # first asked for when nobody says how many rows will be needed; each further page has twice as many
PAGE_ROWS_MAX = 512  # a walk takes so many rows at once: its beam is an array, and moving it costs as much as it holds
REFILL_FACTOR = 4  # times as many rows are asked for when too few of those found meet conditions that are no filter
FILTER_DEPTH_MAX = 32  # nesting of a jsonb filter
FILTER_VALUES_MAX = 100_000  # values of one IN list: 2 MB of request, 0.1 s of parsing
FILTER_CACHE_MAX = 256  # filters whose passing rows are remembered, and brought up to date instead of evaluated anew
FILTER_CACHE_BYTES = 64 * MEBIBYTE  # memory for that: 60 filters over a million rows
FILTER_CACHE_KEY_BYTES = 4 * KIBIBYTE  # longer filters are evaluated each time
FILTER_LOG_TAGS_MAX = 65_536  # rows written since a filter was last asked for that are evaluated alone
FILTER_KEYS_MAX = 1_000_000  # keys a search may be restricted to; more is a column's work
SIEVE_BYTES_MAX = 48 * MEBIBYTE  # filter and keys of one request: 1,000,000 keys as long as a uuid need 40 MB

CONNECT_SECONDS_MAX = 10  # seconds to reach the database; libpq wants a whole number
TCP_SILENCE_MS_MAX = 30_000  # unanswered data after which a connection counts as broken (tcp_user_timeout)
KEEPALIVE_SECONDS = 10  # idle seconds before the operating system probes the peer; three silent probes end it
QUERY_FILES_MAX = 64  # files of named queries kept in memory; there are fewer in sql/queries

EMBEDDED_SECONDS_MAX = 120.0  # start or stop of the embedded server; crash recovery of a demo cluster ends well before
EMBEDDED_PORT_TRIES = 8  # free ports tried when another program takes the chosen one first
EMBEDDED_LOG_BYTES = 4 * KIBIBYTE  # tail of the server's log shown with a failed start
SOCKET_PATH_BYTES_MAX = 103  # sun_path of macOS less its final zero; Linux allows 107

SHADOW_SAMPLE_RATE = 0.05  # of the searches are compared in the states shadow and ramp when nothing else is asked
SHADOW_QUEUE_MAX = 256  # samples of searches that wait to be compared; more are counted as missed
SHADOW_POLL_SECONDS = 0.2  # wait for a sample before the sidecar looks whether it is to stop
SHADOW_STATEMENT_MS = 30_000  # for one search of a comparison: an exact scan of a large table ends here
SHADOW_EXACT_SHARE = 0.2  # of the time may go into exact scans
SHADOW_PAIRS_KEPT = 100_000  # of each collection; about 15 MiB
SHADOW_TRIM_EVERY = 500  # pairs between two removals of older ones
REBUILD_RETRY_SECONDS = 60.0  # before pgvector's index is tried again that could not be built
GUARD_SECONDS = 1.0  # between two looks at the guard of a collection

ATTACH_TRIES = 30  # waits of 2 s for the lock on a busy table, each followed by a pause that lets writers go first
ATTACH_PAUSE_SECONDS = 0.5  # that pause
VERIFY_SAMPLE_ROWS = 1_000  # rows that verify compares when nothing else is asked
OLD_TRANSACTION_SECONDS = 3_600  # an open transaction this old is worth a word of doctor
CHANGELOG_BYTES_MAX = 4 * 1024 * MEBIBYTE  # of one mirror; above, checkpoints of sidecars that do not run are dropped
FLOOD_SHARE = 0.5  # of its rows changed at once: a mirror that reads all again is sooner done than one that follows
DEMO_SECONDS_MAX = 240.0  # one wait of the demonstration; its whole run takes less on two cores
DEMO_STOP_SECONDS_MAX = 30.0  # its sidecar ends well before
PROGRESS_LOG_SECONDS = 2.0  # between two lines of the log about a first copy

RESIDENT_CHECK_SEARCHES = 8  # between two looks at the resident memory of an index with a bound: a look takes 10 us
RESIDENT_SLACK_BYTES = 16 * MEBIBYTE  # rows read again before they are given back again; below, a bound would thrash
PAGE_BYTES = 4 * KIBIBYTE  # unit of a checksum in a store file: what one look at a row or a list has to verify
REFERENCE_CHUNK_BYTES = 8 * MEBIBYTE  # doubles the numpy kernels hold at once; more only leaves the cache
STORE_HEADER_BYTES = 4 * KIBIBYTE  # head of a store file: one memory page, so that data stay aligned
STORE_BLOCK_BYTES = 1 * MEBIBYTE  # read at once while checksums are verified
SECTIONS_MAX = 4_096  # files of one generation; an index has about twenty, and four for each attribute
SECTION_NAME_BYTES_MAX = 48  # its file name stays portable
SECTION_AXES_MAX = 4  # axes of a stored array; ours have one or two
MANIFEST_BYTES_MAX = 16 * MEBIBYTE  # read whole into memory; positions and options need a few KiB
GENERATIONS_MAX = 1_000  # folders looked at in one store; two are kept

ensure(CHANGE_BATCH_ROWS_MAX * 1_024 * 4 <= 16 * MEBIBYTE, "a batch of 1,024-d vectors must fit 16 MiB")
ensure(DIRTY_KEYS_MAX <= RECENT_CHANGES_MAX, "what a search overlays must fit the memory of recent changes")
ensure(SIEVE_BYTES_MAX + REQUEST_BYTES_MAX <= BRIDGE_BYTES_MAX, "filter and keys must fit a message beside the query")
ensure(K_MAX <= WANTED_MAX, "a search must be able to ask for k candidates")
ensure(EF_MAX >= WANTED_MAX, "the beam must be able to hold every wanted candidate")
ensure(STORE_BLOCK_BYTES % PAGE_BYTES == 0, "a block must be whole pages")
ensure(STORE_HEADER_BYTES % PAGE_BYTES == 0, "the head of a file must be whole pages")
