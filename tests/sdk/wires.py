"""How a client reaches a server, and what may differ between an answer that came straight and one that came through."""

import dataclasses
import functools
import pathlib
import ssl

# tidegate dates its answers itself, and what belongs to one connection is each connection's own.
OURS = {"date", "connection", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade"}
OUR_PREFIX = "x-tidegate-"
# Added only to an answer that has none.
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


def told(headers: Headers) -> Headers:
    """What an answer's headers tell, in their order."""
    names = [(name.lower(), value) for name, value in headers]
    return [(name, value) for name, value in names if name not in OURS and not name.startswith(OUR_PREFIX)]


def without_our_limits(direct: Headers, through: Headers) -> Headers:
    if any(name.startswith(LIMITS) for name, _ in direct):
        return through
    return [(name, value) for name, value in through if not name.startswith(LIMITS)]


def came_through(headers: Headers) -> bool:
    return any(name.lower().startswith(OUR_PREFIX) for name, _ in headers)
