"""Whatever tidegate speaks to the provider, the client is told the same."""

import asyncio

import httpx2
import pytest
from calls import CALLS
from compare import agreed, ask_async, client
from conftest import TRANSPARENT
from processes import Gate
from wires import Ends, Wire

# By what the file says: the provider's origin, the setting `http`, and what the provider hears then.
UPSTREAMS = {
    "clear, 1.1": ("http", "1.1", b"1.1"),
    "TLS, 1.1": ("https", "1.1", b"1.1"),
    "clear, 2": ("http", "2", b"2"),
    "TLS, 2": ("https", "2", b"2"),
    "TLS, what both speak": ("https", "auto", b"2"),
}


@pytest.mark.parametrize("name", UPSTREAMS)
def test_calls_are_the_same(provider, certificate, tmp_path, subtests, name):
    scheme, http, spoken = UPSTREAMS[name]
    settings = TRANSPARENT.replace("refusal_statuses", f'http = "{http}"\nrefusal_statuses')
    # A certificate's authority comes as people give it to programs that look for it where OpenSSL does.
    trust = {"SSL_CERT_FILE": str(certificate.authority)}
    gate = Gate(tmp_path, f"{provider.origins[scheme]}/v1", settings=settings, **trust)
    ends = Ends(Wire(tls=False, http2=False), f"{provider.origins['http']}/v1", gate.base_url, certificate.authority)
    with client(ends, ends.through) as of:
        assert of.get("/odd/spoken", cast_to=httpx2.Response).content == spoken
    direct, through = (asyncio.run(ask_async(ends, base_url, CALLS)) for base_url in (ends.direct, ends.through))
    for call in CALLS:
        with subtests.test(call):
            agreed(ends, direct[call], through[call])
    gate.stop()
