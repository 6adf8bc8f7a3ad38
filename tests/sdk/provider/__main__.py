"""`python -m provider CERT KEY`: says in a line of JSON where it serves, and serves."""

import asyncio
import json
import socket
import ssl
import sys

import hypercorn.asyncio
import hypercorn.config
from .app import app
from .realtime import Realtime


async def main(cert: str, key: str) -> None:
    sockets = {name: socket.create_server(("127.0.0.1", 0)) for name in ("http", "https", "ws", "wss")}

    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(cert, key)
    realtime = Realtime()
    await realtime.start(sockets["ws"], None)
    await realtime.start(sockets["wss"], tls)

    config = hypercorn.config.Config()
    config.insecure_bind = [f"fd://{sockets['http'].fileno()}"]
    config.bind = [f"fd://{sockets['https'].fileno()}"]
    config.certfile, config.keyfile = cert, key
    config.include_server_header = False
    config.accesslog = None
    config.errorlog = "-"
    config.keep_alive_timeout = 600
    config.h2_max_inbound_frame_size = 2**20

    print(json.dumps({name: taken.getsockname()[1] for name, taken in sockets.items()}), flush=True)
    # Nothing has to end well here, so what a signal does by itself is enough.
    await hypercorn.asyncio.serve(app, config, shutdown_trigger=asyncio.Event().wait)


asyncio.run(main(*sys.argv[1:]))
