"""The client's side of SCRAM-SHA-256, written down independently of the server's."""

import base64
import hashlib
import hmac


def client_final(server_first, *, first=b"n=,r=abc", password=b"pencil", binding=b"c=biws"):
    """Do the client's arithmetic the way the RFC writes it."""
    fields = dict(part.split(b"=", 1) for part in server_first.split(b","))
    salted = hashlib.pbkdf2_hmac("sha256", password, base64.b64decode(fields[b"s"]), int(fields[b"i"]))
    client_key = hmac.digest(salted, b"Client Key", "sha256")
    without_proof = binding + b",r=" + fields[b"r"]
    message = b",".join((first, server_first, without_proof))
    signature = hmac.digest(hashlib.sha256(client_key).digest(), message, "sha256")
    proof = bytes(left ^ right for left, right in zip(client_key, signature, strict=True))
    return without_proof + b",p=" + base64.b64encode(proof)
