"""What the tests share: providers, gates in front of them, and the ways to reach both."""

import dataclasses
import pathlib

import openai
import pytest
import trustme

pytest.register_assert_rewrite("compare")  # before it is imported
from breaking import Breaking
from processes import Gate, Provider, Sim
from wires import WIRES, Ends, Wire

# A gate that lets everything pass as it comes: what it would retry, and share, is tested elsewhere.
TRANSPARENT = """
[[upstreams]]
base_url = "http://127.0.0.1:1/v1"
refusal_statuses = []
retry_statuses = []
[upstreams.limits]
requests_per_minute = 1_000_000
burst = 1_000_000
concurrency = 1_000
[retry]
attempts_max = 1
[breaker]
failures = 1_000_000
[cache]
mode = "off"
"""


@dataclasses.dataclass
class Certificate:
    """A certificate for the loopback address, of an authority that nobody else knows."""

    authority: pathlib.Path
    chain: pathlib.Path
    key: pathlib.Path

    @property
    def settings(self) -> str:
        return f'[server]\ntls = {{ cert = "{self.chain}", key = "{self.key}" }}\n'


@pytest.fixture(scope="session")
def certificate(tmp_path_factory):
    directory = tmp_path_factory.mktemp("tls")
    made = Certificate(directory / "authority.pem", directory / "chain.pem", directory / "key.pem")
    authority = trustme.CA()
    authority.cert_pem.write_to_path(made.authority)
    issued = authority.issue_cert("localhost", "127.0.0.1")
    issued.private_key_pem.write_to_path(made.key)
    for position, pem in enumerate(issued.cert_chain_pems):
        pem.write_to_path(made.chain, append=position > 0)
    return made


@pytest.fixture(scope="session")
def provider(tmp_path_factory, certificate):
    provider = Provider(tmp_path_factory.mktemp("provider") / "log", certificate.chain, certificate.key)
    yield provider
    provider.stop()


@pytest.fixture(scope="session")
def breaking():
    """A provider whose streams break."""
    breaking = Breaking()
    yield breaking
    breaking.stop()


@pytest.fixture(scope="session")
def gates(tmp_path_factory, provider, certificate):
    """Makes the gate in front of an origin, in clear or with TLS, when it is first asked for."""
    made: dict[tuple[str, bool], Gate] = {}

    def gate(origin: str, tls: bool) -> Gate:
        if (origin, tls) not in made:
            settings = (certificate.settings if tls else "") + TRANSPARENT
            made[origin, tls] = Gate(tmp_path_factory.mktemp("gate"), f"{origin}/v1", settings=settings)
        return made[origin, tls]

    yield gate
    for running in made.values():
        running.stop()


@pytest.fixture(scope="session")
def ends_of(provider, gates, certificate):
    """Over a wire, the provider itself and the gate in front of it."""

    def ends(wire: Wire) -> Ends:
        gate = gates(provider.origins["http"], wire.tls)
        return Ends(wire, f"{provider.origins[wire.scheme]}/v1", gate.base_url, certificate.authority)

    return ends


@pytest.fixture(scope="session", params=WIRES, ids=str)
def ends(request, ends_of) -> Ends:
    return ends_of(request.param)


@pytest.fixture(scope="session")
def realtime_ends_of(provider, gates, certificate):
    """The same for WebSockets."""

    def ends(wire: Wire) -> Ends:
        gate = gates(provider.origins["ws"], wire.tls)
        direct = provider.origins["wss" if wire.tls else "ws"]
        return Ends(wire, f"{direct}/v1", gate.base_url, certificate.authority)

    return ends


@pytest.fixture(scope="session", params=[wire for wire in WIRES if not wire.http2], ids=str)
def realtime_ends(request, realtime_ends_of) -> Ends:
    """WebSockets start as HTTP/1.1."""
    return realtime_ends_of(request.param)


def client(base_url: str) -> openai.OpenAI:
    """The official client, as people make it. It does not retry, so that no error of ours goes unseen."""
    return openai.OpenAI(base_url=base_url, api_key="sk-test", max_retries=0, timeout=120)


@pytest.fixture(scope="session")
def sim(tmp_path_factory):
    """A simulated provider without limits."""
    sim = Sim(tmp_path_factory.mktemp("sim") / "sim.log", "--latency", "20ms", "--latency-spread", "0")
    yield sim
    sim.stop()


@pytest.fixture(scope="session")
def gate(tmp_path_factory, sim):
    """A gate that is nearly always open."""
    gate = Gate(tmp_path_factory.mktemp("gate"), sim.base_url, "--rpm", "6000", "--concurrency", "50")
    yield gate
    gate.stop()


@pytest.fixture(scope="session")
def direct(sim):
    return client(sim.base_url)


@pytest.fixture(scope="session")
def gated(gate):
    return client(gate.base_url)
