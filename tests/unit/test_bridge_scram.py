import base64

import pytest
from scram_client import client_final

from ruvector.bridge.scram import ScramExchange, ScramVerifier, decoy_verifier, prepare_password
from ruvector.errors import AuthenticationFailed, InvalidParameter, ProtocolViolation

# The example of RFC 7677, section 3.
PASSWORD = "pencil"
SALT = base64.b64decode("W22ZaJ0SNY7soEsUEjb6gQ==")
CLIENT_FIRST = b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO"
SERVER_NONCE = "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0"
SERVER_FIRST = b"r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"
CLIENT_FINAL = (
    b"c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
)
SERVER_FINAL = b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="


def exchange():
    return ScramExchange(ScramVerifier.from_password(PASSWORD, salt=SALT), nonce=SERVER_NONCE)


def test_exchange_follows_the_example_of_the_rfc():
    login = exchange()
    assert login.first(CLIENT_FIRST) == SERVER_FIRST
    assert login.final(CLIENT_FINAL) == SERVER_FINAL


def test_empty_user_name_of_libpq_is_accepted():
    login = exchange()
    assert login.final(client_final(login.first(b"n,,n=,r=abc"))).startswith(b"v=")


def test_client_that_could_bind_is_accepted():
    login = exchange()
    assert login.final(client_final(login.first(b"y,,n=,r=abc"), binding=b"c=eSws")).startswith(b"v=")


@pytest.mark.parametrize("binding", [b"c=biws", b"c=cD10bHM=", b"c="])
def test_changed_channel_binding_is_refused(binding):
    login = exchange()
    with pytest.raises(ProtocolViolation, match="channel binding"):
        login.final(client_final(login.first(b"y,,n=,r=abc"), binding=binding))


def test_wrong_password_is_refused():
    login = exchange()
    with pytest.raises(AuthenticationFailed):
        login.final(client_final(login.first(b"n,,n=,r=abc"), password=b"pencils"))


def test_proof_of_another_exchange_is_refused():
    first = exchange()
    proof = client_final(first.first(b"n,,n=,r=abc"))
    second = ScramExchange(ScramVerifier.from_password(PASSWORD, salt=SALT), nonce="another")
    second.first(b"n,,n=,r=abc")
    with pytest.raises(ProtocolViolation, match="nonce"):
        second.final(proof)


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"n",
        b"n,,",
        b"n,,n=",
        b"n,,r=abc",
        b"n,,n=,r=",
        b"n,,n=,r=a b",
        b"n,,n=,r=\xff",
        b"n,a=other,n=,r=abc",
        b"p=tls-server-end-point,,n=,r=abc",
        b"x,,n=,r=abc",
        b"n,,m=extension,n=,r=abc",
    ],
)
def test_malformed_first_message_is_refused(message):
    with pytest.raises(ProtocolViolation):
        exchange().first(message)


@pytest.mark.parametrize(
    "message",
    [b"", b"c=biws", b"c=biws,p=AAAA", b"c=biws,r=abc,p=!", b"c=biws,r=wrong,p=" + b"A" * 44, b"\xff,\xff,p=AAAA"],
)
def test_malformed_final_message_is_refused(message):
    login = exchange()
    login.first(b"n,,n=,r=abc")
    with pytest.raises(ProtocolViolation):
        login.final(message)


def test_proof_of_the_wrong_size_is_refused():
    login = exchange()
    nonce = dict(part.split(b"=", 1) for part in login.first(b"n,,n=,r=abc").split(b","))[b"r"]
    with pytest.raises(ProtocolViolation, match="size"):
        login.final(b"c=biws,r=" + nonce + b",p=AAAA")


def test_verifier_survives_its_text():
    verifier = ScramVerifier.from_password("x")
    assert ScramVerifier.from_text(verifier.to_text()) == verifier
    assert verifier.to_text().startswith("SCRAM-SHA-256$4096:")
    assert ScramVerifier.from_password("x") != verifier  # another salt
    assert "x" not in repr(verifier).replace("ScramVerifier", "")


@pytest.mark.parametrize("text", ["", "md5abc", "SCRAM-SHA-256$", "SCRAM-SHA-256$1:AA==$AA==:AA==", "SCRAM-SHA-256$x"])
def test_text_that_is_no_verifier_is_refused(text):
    with pytest.raises(InvalidParameter, match="not a SCRAM"):
        ScramVerifier.from_text(text)


def test_unknown_login_looks_the_same_every_time():
    first, again = decoy_verifier("nobody", secret=b"s"), decoy_verifier("nobody", secret=b"s")
    assert first == again
    assert first.salt != decoy_verifier("somebody", secret=b"s").salt
    assert len(first.salt) == 16
    assert first.iterations == 4096


@pytest.mark.parametrize(
    ("password", "prepared"),
    [
        ("plain", b"plain"),
        ("non\u00a0breaking", b"non breaking"),
        ("so\u00adft", b"soft"),
        ("\u2168", b"IX"),
        ("bell\u0007ü", "bell\u0007ü".encode()),  # prohibited: kept as it is
        ("\u06271", "\u06271".encode()),  # right to left must end as it begins
    ],
)
def test_password_is_prepared_as_postgresql_does(password, prepared):
    assert prepare_password(password) == prepared
