"""What the clients in these folders share: a connection that is kept, and a loud end."""
import os, socket, time


def wrong(*what):
    print("WRONG", *what, flush=True)
    os._exit(3)


class Connection:
    """To a unix socket whose server may still be starting."""

    def __init__(self, path):
        for _ in range(600):
            try:
                self.socket = socket.socket(socket.AF_UNIX)
                self.socket.connect(path)
                break
            except OSError:
                time.sleep(0.05)
        self.file = self.socket.makefile("rb")
