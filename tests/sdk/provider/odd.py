"""What HTTP allows and few expect. The path says what comes back; any path that nobody knows is an echo."""

import base64

from .wire import SIGNALS, Answer, Request, cut, of_json

# Where it moved, for redirects.
PLACES = {
    "absolute": "http://provider.example:8000/v1/echo?a=b#c",
    "relative": "../../echo?a=%20b",
    "path": "/v1/echo",
}


def odd(request: Request) -> Answer:
    """`/v1/odd/KIND/…`."""
    kind, *rest = request.path.removeprefix("/v1/odd/").split("/")
    match kind:
        case "status":
            return Answer(b"", int(rest[0]), [("etag", '"1"'), ("x-note", "no body")], limits=False)
        case "moved":
            return Answer(b"gone elsewhere", int(rest[0]), [("location", PLACES[rest[1]])])
        case "headers":
            return Answer(b"many", 200, HEADERS, limits=False)
        case "empty":
            return Answer([], 200, [("content-type", "application/json")], limits=False)
        case "long":
            return Answer(cut(bytes(range(256)) * 8_192, 70_001), 200)
        case "whole":
            return Answer(bytes(range(256)) * 8_192, 200, [("content-type", "application/x-odd")])
        case "range":
            headers = [("content-range", "bytes 2-5/10"), ("accept-ranges", "bytes")]
            return Answer(b"2345", 206, headers)
        case "head":
            return Answer(b"x" * 1_234, 200, [("content-type", "text/plain"), ("last-modified", "yesterday")])
        case "spoken":
            return Answer(request.version.encode(), 200)
        case "await":
            # Answers once a part of the body of a request for that path has come.
            return Answer([SIGNALS[f"begun /v1/{'/'.join(rest)}"], b"begun"], 200)
        case "go":
            SIGNALS[f"go {rest[0]}"].set()
            return Answer(b"gone", 200)
    return echo(request)


HEADERS = [
    ("set-cookie", "a=1; Path=/"),
    ("set-cookie", "b=2; HttpOnly"),
    ("x-twice", "first"),
    ("x-between", "1, 2"),
    ("x-twice", "second"),
    ("x-empty", ""),
    ("x-latin", "Gezeit\xe9n"),
    ("x-utf8", "潮汐 🌊".encode().decode("latin-1")),
    ("x-long", "l" * 6_000),
    ("x-odd-!#$%&'*+-.^_`|~", "a token allows this"),
    ("x-inner", "two  spaces\tand a tab"),
    ("warning", '199 - "misc"'),
    ("via", "1.1 a-cache"),
    ("cache-control", "no-store, private"),
    ("link", "</style.css>; rel=preload"),
    ("alt-svc", 'h3=":443"'),
    ("strict-transport-security", "max-age=1"),
    ("content-language", "de"),
    ("age", "3"),
    *((f"x-many-{number}", str(number)) for number in range(30)),
]


def echo(request: Request) -> Answer:
    """All that arrived; the body is said back as bytes, so that nothing can hide in a text."""
    headers = [("content-type", "application/json"), ("x-body-length", str(len(request.body)))]
    answer = of_json({"seen": request.seen(), "body": base64.b64encode(request.steady_body()).decode()})
    answer.headers += headers[1:]
    answer.limits = False
    return answer
