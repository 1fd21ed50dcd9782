import pytest

from ruvector.bridge.grammar import parse
from ruvector.bridge.state import FAILED, IDLE, IN_TRANSACTION, SessionState
from ruvector.errors import InvalidParameter, LimitExceeded, RuvectorError, SessionProblem
from ruvector.limits import SAVEPOINTS_MAX, SETTINGS_MAX


def apply(state, text):
    return [state.apply(command) for command in parse(text)][-1]


@pytest.fixture
def state():
    return SessionState({"user": "me", "application_name": "tést"})


def test_block_opens_and_closes(state):
    assert apply(state, "BEGIN").tag == "BEGIN"
    assert state.transaction == IN_TRANSACTION
    assert apply(state, "BEGIN").warning == ("25001", "there is already a transaction in progress")
    assert apply(state, "COMMIT").tag == "COMMIT"
    assert state.transaction == IDLE
    assert apply(state, "COMMIT").warning == ("25P01", "there is no transaction in progress")


def test_error_outside_a_block_changes_nothing(state):
    state.fail()
    assert state.transaction == IDLE


@pytest.mark.parametrize("text", ["BEGIN", "SAVEPOINT s", "SET x = 1", "DISCARD ALL", "DEALLOCATE ALL"])
def test_failed_block_refuses_everything_but_its_end(state, text):
    apply(state, "BEGIN")
    state.fail()
    with pytest.raises(SessionProblem) as raised:
        apply(state, text)
    assert raised.value.sqlstate == "25P02"
    with pytest.raises(SessionProblem):
        state.show("server_version")
    assert apply(state, "COMMIT").tag == "ROLLBACK"
    assert state.transaction == IDLE


def test_savepoint_rescues_a_failed_block(state):
    apply(state, "BEGIN; SAVEPOINT a; SAVEPOINT b")
    state.fail()
    assert state.transaction == FAILED
    assert apply(state, "ROLLBACK TO a").tag == "ROLLBACK"
    assert state.transaction == IN_TRANSACTION
    with pytest.raises(SessionProblem, match='savepoint "b" does not exist'):
        apply(state, "RELEASE b")
    assert apply(state, "RELEASE a").tag == "RELEASE"


def test_savepoint_needs_a_block(state):
    with pytest.raises(SessionProblem) as raised:
        apply(state, "SAVEPOINT a")
    assert raised.value.sqlstate == "25P01"


def test_settings_are_kept_shown_and_reset(state):
    assert state.show("application_name") == "t?st"
    assert apply(state, "SET DateStyle = iso, dmy").changed == ["datestyle"]
    assert state.show("datestyle") == "ISO, DMY"
    assert apply(state, "RESET datestyle").changed == ["datestyle"]
    assert state.show("datestyle") == "ISO, MDY"
    apply(state, "SET ruvector.ef_search = 200")
    assert state.show("ruvector.ef_search") == "200"
    apply(state, "DISCARD ALL")
    with pytest.raises(SessionProblem) as raised:
        state.show("ruvector.ef_search")
    assert raised.value.sqlstate == "42704"


@pytest.mark.parametrize("name", ["UTF8", "utf-8", "UNICODE", "SQL_ASCII", "''utf-8''"])
def test_utf8_is_the_only_encoding(state, name):
    apply(state, f"SET client_encoding = '{name}'")
    with pytest.raises(InvalidParameter, match="latin1"):
        apply(state, "SET client_encoding TO LATIN1")
    with pytest.raises(InvalidParameter):
        SessionState({"client_encoding": "latin1"})


@pytest.mark.parametrize(
    "text", ["SET server_version = '9'", "SET standard_conforming_strings = off", "SET session_authorization = x"]
)
def test_fixed_settings_cannot_be_changed(state, text):
    with pytest.raises(RuvectorError):
        apply(state, text)


def test_settings_and_savepoints_are_bounded(state):
    for number in range(SETTINGS_MAX):
        apply(state, f"SET a.b{number} = 1")
    with pytest.raises(LimitExceeded):
        apply(state, "SET a.one_more = 1")
    apply(state, "BEGIN")
    for number in range(SAVEPOINTS_MAX):
        apply(state, f"SAVEPOINT s{number}")
    with pytest.raises(LimitExceeded):
        apply(state, "SAVEPOINT one_more")


def test_date_style_is_reported_in_its_canonical_form(state):
    apply(state, "SET datestyle = ISO")
    assert state.show("datestyle") == "ISO, MDY"
    with pytest.raises(InvalidParameter, match="german"):
        apply(state, "SET datestyle = German")
