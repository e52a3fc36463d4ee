"""HTTP for uvicorn by httptools, a parser in C, with a limit that it lacks: headers may not go on without end."""

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

MAX_HEAD_BYTES = 64 * 1024


class BoundedHttp(HttpToolsProtocol):
    """One connection; a request line with headers of more than `MAX_HEAD_BYTES` is answered with 400 and closed."""

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self._head_bytes, self._in_head, self._messages = 0, True, 0

    def on_headers_complete(self) -> None:
        """From here on comes a body, which has its own limit."""
        self._in_head = False
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """The next byte on this connection begins another head."""
        self._head_bytes, self._in_head = 0, True
        self._messages += 1
        super().on_message_complete()

    def data_received(self, data: bytes) -> None:
        """Parse what came; count it if all of it belongs to a head that is not whole yet."""
        in_head, messages = self._in_head, self._messages
        super().data_received(data)
        if in_head and self._in_head and self._messages == messages and not self.transport.is_closing():
            self._head_bytes += len(data)
            if self._head_bytes > MAX_HEAD_BYTES:
                self.send_400_response("The headers are too long.")
