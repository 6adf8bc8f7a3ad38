"""An agent gateway: each call to it becomes two calls of a model."""

import http.server
import json
import threading

import openai


class Gateway(http.server.ThreadingHTTPServer):
    """It finds its models where it is told to, and keeps the header fields of those who called it."""

    daemon_threads = True

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            ask = json.loads(self.rfile.read(int(self.headers["content-length"])))
            self.server.called.append(dict(self.headers))
            of = openai.OpenAI(base_url=self.server.models, api_key="sk-gateway", max_retries=0, timeout=60)
            said = [
                of.chat.completions.create(model="m", messages=ask["messages"]).choices[0].message.content
                for _ in range(2)
            ]
            message = {"role": "assistant", "content": " / ".join(said)}
            choice = {"index": 0, "message": message, "finish_reason": "stop"}
            common = {"id": "agent-1", "object": "chat.completion", "created": 1, "model": ask["model"]}
            body = json.dumps(common | {"choices": [choice]}).encode()
            self.send_response(200)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_args: object) -> None:
            pass

    def __init__(self):
        super().__init__(("127.0.0.1", 0), self.Handler)
        self.called: list[dict] = []
        self.models = ""
        self.origin = f"http://127.0.0.1:{self.server_port}"
        threading.Thread(target=self.serve_forever, daemon=True).start()
