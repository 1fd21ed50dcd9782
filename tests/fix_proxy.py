"""A TCP proxy in front of a server that can be cut, slowed down, or turned into a black hole."""

import contextlib
import socket
import threading
import time


class Proxy:
    """Forwards connections to a port; ``mode`` decides what becomes of new and open ones."""

    def __init__(self, target):
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.mode = "open"  # open, slow or silent (nothing is forwarded, everything stays connected)
        self._open = []
        self._closing = threading.Event()
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while not self._closing.is_set():
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            try:
                server = socket.create_connection(("127.0.0.1", self._target), timeout=5)
            except OSError:
                client.close()
                continue
            server.settimeout(None)
            self._open += [client, server]
            for source, sink in ((client, server), (server, client)):
                threading.Thread(target=self._forward, args=(source, sink), daemon=True).start()

    def _forward(self, source, sink):
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                while self.mode == "silent" and not self._closing.is_set():
                    time.sleep(0.02)
                if self.mode == "slow":
                    time.sleep(0.05)
                sink.sendall(data)
        self._shut(source, sink)

    def cut(self):
        """Reset every open connection; new ones are forwarded as before."""
        connections, self._open = self._open, []
        self._shut(*connections)

    @staticmethod
    def _shut(*sockets):
        for each in sockets:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def close(self):
        self._closing.set()
        self._listener.close()
        self.cut()
