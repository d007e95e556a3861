"""A web server on this machine that answers with a red picture."""

import io
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import NamedTuple

from PIL import Image

RED = (255, 0, 0)


class Request(NamedTuple):
    """What a client asked for."""

    path: str
    authorization: str | None
    host: str | None


def png(colour=RED, size=(3, 2)):
    """The bytes of a PNG file of one colour."""
    file = io.BytesIO()
    Image.new("RGB", size, colour).save(file, "PNG")
    return file.getvalue()


class ImageServer(HTTPServer):
    """Keeps the requests. `/moved` is redirected, `/missing.png` is not there, and all else is a red picture."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.requests = []

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.server.requests.append(Request(self.path, self.headers.get("Authorization"), self.headers.get("Host")))
        self.send_response({"/moved": 302, "/missing.png": 404}.get(self.path, 200))
        if self.path == "/moved":
            self.send_header("Location", "/there")
        self.end_headers()
        self.wfile.write(png())

    def log_message(self, *args):
        pass


@contextmanager
def running_image_server():
    with ImageServer() as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        yield server
        server.shutdown()
