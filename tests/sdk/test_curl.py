"""curl, which shows what is on the wire: any method, path, header and body passes byte for byte."""

import dataclasses
import pathlib
import subprocess

import pytest
from wires import Ends, came_through, comparable

BINARY = bytes(range(256)) * 300
ECHO = "/v1/unheard/of"
# What is asked, as curl's arguments; "{file}" is a file of bytes, the path stands last.
ASKS = {
    "get": [ECHO],
    "odd path": [f"{ECHO}/%2e%2e/a%2Fb//c;d=1:e@f!$&'()*+,=~|^"],
    "dots": ["/v1/a/./b/../c"],
    "odd query": [f"{ECHO}?x=%20&y=+&z[]=1&&=&?&/&%00&q=a%2Bb&x=2"],
    "long query": [f"{ECHO}?{'q' * 6_000}"],
    "not under v1": ["/healthz?x=1"],
    "the root": ["/"],
    "v1 itself": ["/v1/"],
    "post": ["-d", "a=b&c=%20", ECHO],
    "post, bytes": ["-H", "Content-Type: application/x-odd", "--data-binary", "@{file}", ECHO],
    "post, no type": ["-H", "Content-Type:", "--data-binary", "@{file}", ECHO],
    "post, nothing": ["-X", "POST", ECHO],
    "post, length 0": ["-d", "", ECHO],
    "post, chunks": ["-H", "Transfer-Encoding: chunked", "-X", "POST", "-T", "{file}", ECHO],
    "post, expects 100": ["-H", "Expect: 100-continue", "--expect100-timeout", "0.2", "--data-binary", "@{file}", ECHO],
    "post, form": ["-F", "a=ü", "-F", "f=@{file};filename=x y.bin;type=a/b", ECHO],
    "post, JSON that is none": ["-H", "Content-Type: application/json", "-d", '{"model": ,}', ECHO],
    "post, compressed": ["-H", "Content-Encoding: gzip", "--data-binary", "@{file}", ECHO],
    "put": ["-T", "{file}", ECHO],
    "patch": ["-X", "PATCH", "-d", "x", ECHO],
    "delete": ["-X", "DELETE", ECHO],
    "delete, body": ["-X", "DELETE", "-d", "x", ECHO],
    "get, body": ["-X", "GET", "-d", "x", ECHO],
    "options": ["-X", "OPTIONS", "-H", "Origin: http://a", "-H", "Access-Control-Request-Method: POST", ECHO],
    "propfind": ["-X", "PROPFIND", ECHO],
    "odd method": ["-X", "M-SEARCH", ECHO],
    "head": ["-I", "/v1/odd/head"],
    "head of nothing": ["-I", "/v1/odd/status/204"],
    "no content": ["/v1/odd/status/204"],
    "not modified": ["-H", 'If-None-Match: "1"', "/v1/odd/status/304"],
    "reset content": ["/v1/odd/status/205"],
    "accepted": ["/v1/odd/status/202"],
    "an odd status": ["/v1/odd/status/299"],
    "teapot": ["/v1/odd/status/418"],
    "range": ["-H", "Range: bytes=2-5", "/v1/odd/range"],
    "nothing": ["/v1/odd/empty"],
    "many headers": ["/v1/odd/headers"],
    "by pieces": ["/v1/odd/long"],
    "at once": ["/v1/odd/whole"],
    **{f"moved {status}": [f"/v1/odd/moved/{status}/absolute"] for status in (301, 302, 303, 307, 308)},
    "moved, relative": ["/v1/odd/moved/307/relative"],
    "headers twice": ["-H", "X-Dup: 1", "-H", "X-Other: 0", "-H", "X-Dup: 2", "-H", "X-Dup: 1", ECHO],
    "headers without value": ["-H", "X-Empty;", ECHO],
    "headers, not ASCII": ["-H", "X-Odd: Gezeiten ü 🌊", ECHO],
    "headers, long": ["-H", f"X-Long: {'l' * 8_000}", ECHO],
    "headers, many": [*(part for n in range(60) for part in ("-H", f"X-Many-{n}: {n}")), ECHO],
    "headers, odd names": ["-H", "X_Under: 1", "-H", "X.Dot: 2", "-H", "!#$%&'*+-.^_`|~9: 3", ECHO],
    "cookies": ["-H", "Cookie: a=1; b=2", ECHO],
    "forwarded": ["-H", "X-Forwarded-For: 1.2.3.4", "-H", "Forwarded: for=x", "-H", "Via: 1.0 a", ECHO],
    "credentials": ["-u", "user:pässword", ECHO],
    "no agent": ["-H", "User-Agent:", "-H", "Accept:", ECHO],
    "chat": ["-H", "Content-Type: application/json", "-d", '{"model":"tide-1","messages":[1]}', "/v1/chat/completions"],
    "chat, spaced": ["-d", '\r\n {"model" :\t"tide-1","messages":[1],"a":1.0,"a":2e0}\n', "/v1/chat/completions"],
    "chat, compressed": ["-d", '{"model":"tide-gzip","messages":[1]}', "/v1/chat/completions"],
    "chat, not JSON": ["-d", "model=tide-1", "/v1/chat/completions"],
    "chat, get": ["/v1/chat/completions"],
    "chat, query": ["-d", '{"model":"tide-1","messages":[1]}', "/v1/chat/completions?api-version=2024-10-21&a"],
    "chat, slash": ["-d", '{"model":"tide-1","messages":[1]}', "/v1/chat/completions/"],
    "chat, slashes": ["-d", '{"model":"tide-1","messages":[1]}', "/v1//chat/completions"],
    "chat, encoded": ["-d", '{"model":"tide-1","messages":[1]}', "/v1/chat%2Fcompletions"],
    "chat, capitals": ["-d", '{"model":"tide-1","messages":[1]}', "/V1/Chat/Completions"],
    "chat, compressed question": ["-H", "Content-Encoding: gzip", "--data-binary", "@{file}", "/v1/chat/completions"],
    "stream": ["-d", '{"model":"tide-1","messages":[1],"stream":true}', "/v1/chat/completions"],
    "stream, compressed": ["-d", '{"model":"tide-gzip","messages":[1],"stream":true}', "/v1/chat/completions"],
    "speech": ["-d", "{}", "/v1/audio/speech"],
}


@dataclasses.dataclass
class Got:
    """Version and status, headers and body, as they came. A reason phrase means nothing, and HTTP/2 has none."""

    status: list[str]
    headers: list[tuple[str, str]]
    body: bytes


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("curl") / "bytes"
    path.write_bytes(BINARY)
    return path


@pytest.mark.parametrize("ask", ASKS.values(), ids=ASKS.keys())
def test_an_exchange_is_the_same(ends, file, tmp_path, ask):
    direct, through = (curl(ends, base_url, ask, file, tmp_path) for base_url in (ends.direct, ends.through))
    assert through.status == direct.status
    assert through.body == direct.body
    assert came_through(through.headers) and not came_through(direct.headers)
    expected, told = comparable(direct.headers, through.headers)
    assert told == expected


def curl(ends: Ends, base_url: str, ask: list[str], file: pathlib.Path, directory: pathlib.Path) -> Got:
    *flags, path = [part.replace("{file}", str(file)) for part in ask]
    heads, body = directory / "heads", directory / "body"
    command = ["curl", "-sS", "--path-as-is", "--globoff", "--max-time", "60", *carriage(ends)]
    done = subprocess.run(
        [*command, "-D", heads, "-o", body, *flags, f"{base_url.removesuffix('/v1')}{path}"],
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    # What came before the last head was an interim answer, "100 Continue".
    head = heads.read_bytes().decode("latin-1").removesuffix("\r\n\r\n").split("\r\n\r\n")[-1]
    status, *lines = head.split("\r\n")
    headers = [tuple(line.split(": ", 1)) if ": " in line else (line.rstrip(":"), "") for line in lines]
    if flags == ["-I"]:
        body.unlink()
    return Got(status.split(" ")[:2], headers, body.read_bytes() if body.exists() else b"")


def carriage(ends: Ends) -> list[str]:
    flags = {
        (False, False): ["--http1.1"],
        (False, True): ["--http2-prior-knowledge"],
        (True, False): ["--http1.1", "--cacert", str(ends.authority)],
        (True, True): ["--http2", "--cacert", str(ends.authority)],
    }
    return flags[ends.wire.tls, ends.wire.http2]
