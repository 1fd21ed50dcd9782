"""A certificate authority made for a test."""

import trustme


class Authority:
    """Signs certificates for localhost and writes them as an operator would."""

    def __init__(self, folder):
        self._ca = trustme.CA()
        self.root, self.certificate, self.key = folder / "root.pem", folder / "server.pem", folder / "server.key"
        self._ca.cert_pem.write_to_path(self.root)
        self.issue()

    def issue(self):
        issued = self._ca.issue_cert("localhost", "127.0.0.1")
        self.key.unlink(missing_ok=True)
        self.key.touch(mode=0o600)
        self.key.write_bytes(issued.private_key_pem.bytes())
        self.certificate.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
