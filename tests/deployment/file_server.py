"""A web server on loopback for the client's tests: files, a redirect, and an API that is full for a while."""

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import orjson


class FileServer:
    """As a context manager it answers until the end of the block.

    Args:
        folder: files to give away.
        moved_to: where `/moved` redirects to.
        full: how many calls of `/v1/` are answered with 429; then they are answered with the key that came along.
    """

    def __init__(self, folder: Path = Path(), moved_to: str = "", full: int = 0):
        self.folder, self.moved_to, self.full = folder, moved_to, full

    def __enter__(self) -> "FileServer":
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:  # the name is http.server's
                status, headers, body = outer.answer(self.path, self.headers)
                self.send_response(status)
                for name, value in {"Content-Length": str(len(body)), **headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *arguments) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self._server.server_port
        threading.Thread(target=self._server.serve_forever, args=[0.05], daemon=True).start()
        return self

    def __exit__(self, *exception) -> None:
        self._server.shutdown()
        self._server.server_close()

    def answer(self, path: str, headers) -> tuple[int, dict, bytes]:
        """Status, headers and body."""
        if path.startswith("/v1/"):
            self.full -= 1
            if self.full >= 0:
                return 429, {}, b"busy"
            return 200, {}, orjson.dumps({"authorization": headers["Authorization"]})
        if path == "/moved":
            return 302, {"Location": self.moved_to}, b""
        file = self.folder / path[1:]
        return (200, {}, file.read_bytes()) if file.is_file() else (404, {}, b"")
