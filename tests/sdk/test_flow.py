"""What flows, flows at once: nothing is gathered before it is passed on, and calls do not disturb each other.

Nothing here is measured in seconds: the provider goes on with its answer only when it is told that the client has the
first of it, and the client with its upload when it is told that the provider has.
"""

import asyncio
import itertools

import httpx2
from calls import CHAT, MESSAGES
from compare import async_client, client
from wires import Ends

NUMBERS = itertools.count()


def test_an_event_is_passed_on_before_the_next_one_exists(ends):
    def ask(of):
        name = str(next(NUMBERS))
        stream = iter(of.chat.completions.create(model=f"tide-waits {name}", messages=MESSAGES, stream=True))
        heard = [next(stream), next(stream)]
        with straight(ends) as signal:
            assert signal.post(f"/odd/go/{name}", cast_to=httpx2.Response).status_code == 200
        heard += stream
        return [chunk.choices[0].delta.content for chunk in heard]

    direct, through = (ask(client(ends, base_url)) for base_url in (ends.direct, ends.through))
    assert through == direct
    assert len(direct) > 10


def test_an_upload_is_passed_on_before_it_is_whole(ends):
    def parts(path: str):
        yield b"the first part"
        with straight(ends) as signal:
            assert signal.get(f"/odd/await{path}", cast_to=httpx2.Response).content == b"begun"
        yield b"the last part"

    def ask(of):
        path = f"/trickle/{next(NUMBERS)}"
        return of.post(path, cast_to=httpx2.Response, content=parts(path)).json()["body"]

    direct, through = (ask(client(ends, base_url)) for base_url in (ends.direct, ends.through))
    assert through == direct


def test_forty_calls_at_once_are_the_same(ends):
    async def one(of, number: int):
        if number % 3 == 0:
            return (await of.audio.speech.create(model="tide-tts", voice="alloy", input=str(number))).content
        if number % 3 == 1:
            return (await of.chat.completions.create(**CHAT, seed=number)).model_dump()
        stream = await of.chat.completions.create(**CHAT, seed=number, stream=True)
        return [chunk.model_dump() async for chunk in stream]

    async def ask(base_url: str) -> list:
        async with async_client(ends, base_url) as of:
            return await asyncio.gather(*(one(of, number) for number in range(40)))

    direct, through = (asyncio.run(ask(base_url)) for base_url in (ends.direct, ends.through))
    assert through == direct


def test_a_stream_that_is_left_does_not_hurt_the_next_call(ends):
    async def ask(of):
        stream = await of.chat.completions.create(model=f"tide-waits {next(NUMBERS)}", messages=MESSAGES, stream=True)
        await anext(aiter(stream))
        await stream.close()
        return (await of.chat.completions.create(**CHAT)).model_dump()

    async def run(base_url: str) -> dict:
        async with async_client(ends, base_url) as of:
            return await ask(of)

    direct, through = (asyncio.run(run(base_url)) for base_url in (ends.direct, ends.through))
    assert through == direct


def straight(ends: Ends):
    return client(ends, ends.direct)
