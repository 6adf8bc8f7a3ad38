"""How a client reaches a server, and what may differ between an exchange that is straight and one that goes through."""

import dataclasses
import functools
import pathlib
import ssl

# What belongs to one connection, or is spent on it, is each connection's own.
HOP_BY_HOP = {"connection", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade"}
# Of a request: where it was sent, and what the nearest server answers.
OF_REQUESTS = HOP_BY_HOP | {"host", "expect"}
# Of an answer: tidegate dates it.
OF_ANSWERS = HOP_BY_HOP | {"date"}
OUR_PREFIX = "x-tidegate-"
# tidegate's own, added only to an answer that has none.
LIMITS = "x-ratelimit-"

Headers = list[tuple[str, str]]


@dataclasses.dataclass(frozen=True)
class Wire:
    tls: bool
    http2: bool

    def __str__(self) -> str:
        return ("h2" if self.http2 else "h1") + ("-tls" if self.tls else "-clear")

    @property
    def scheme(self) -> str:
        return "https" if self.tls else "http"

    @property
    def version(self) -> str:
        return "HTTP/2" if self.http2 else "HTTP/1.1"


WIRES = [Wire(tls, http2) for tls in (False, True) for http2 in (False, True)]


@dataclasses.dataclass(frozen=True)
class Ends:
    """Two base URLs, of which a client should not be able to tell which is which."""

    wire: Wire
    direct: str
    through: str
    authority: pathlib.Path

    @functools.cached_property
    def tls(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=str(self.authority))


def comparable(direct: Headers, through: Headers) -> tuple[Headers, Headers]:
    """What both answers tell, without what differs by design. Nothing else may differ."""
    direct, through = told(direct), told(through)
    names = {name for name, _ in direct}
    if not any(name.startswith(LIMITS) for name in names):
        through = [(name, value) for name, value in through if not name.startswith(LIMITS)]
    if "content-length" not in names:
        # How a body is framed is each hop's own affair: a length may stand for chunks, once it is known.
        through = [(name, value) for name, value in through if name != "content-length"]
    return direct, through


def told(headers: Headers) -> Headers:
    """Fields of one name keep their order; between names order means nothing, nor does their case."""
    names = [(name.lower(), value) for name, value in headers]
    kept = [(name, value) for name, value in names if name not in OF_ANSWERS and not name.startswith(OUR_PREFIX)]
    return sorted(kept, key=lambda field: field[0])


def came_through(headers: Headers) -> bool:
    return any(name.lower().startswith(OUR_PREFIX) for name, _ in headers)
