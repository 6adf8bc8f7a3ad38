"""A provider that refuses."""

import collections
import http.server
import json
import threading


class Refuser(http.server.ThreadingHTTPServer):
    """A provider that answers every POST with the status its path ends in, and an error body to match."""

    daemon_threads = True

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        BODIES = {
            404: {"message": "The model `nope` does not exist", "param": None, "code": "model_not_found"},
            422: {"message": "temperature: unbelievable", "param": "temperature", "code": None, "hint": "ünïcode"},
        }

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers.get("content-length", 0)))
            status = int(self.path.split("/")[1])
            self.server.seen[status] += 1
            error = self.BODIES.get(status, {"message": f"refused with {status}", "param": None, "code": None})
            body = json.dumps({"error": {**error, "type": "invalid_request_error"}}, ensure_ascii=False).encode()
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_args: object) -> None:
            pass

    def __init__(self):
        super().__init__(("127.0.0.1", 0), self.Handler)
        self.seen: collections.Counter[int] = collections.Counter()
        self.origin = f"http://127.0.0.1:{self.server_port}"
        threading.Thread(target=self.serve_forever, daemon=True).start()
