"""The page of `cnn demo`, served in this process."""

import contextlib
import threading

from cnn.demo import Server


@contextlib.contextmanager
def served(viewer):
    """The server, which answers inside the block."""
    with Server(viewer) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
