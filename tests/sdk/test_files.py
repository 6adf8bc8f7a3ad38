"""Files of a size that nobody should hold in memory pass both ways, byte for byte."""

import hashlib
import random

import openai
import pytest
from calls import file
from compare import same

CONTENT = random.Random(20).randbytes(20 * 2**20 + 1)
DIGEST = hashlib.sha256(CONTENT).hexdigest()


def test_an_upload_arrives_whole_and_comes_back_whole(ends):
    def ask(of: openai.OpenAI):
        kept = of.files.create(file=file(CONTENT, "tides.jsonl"), purpose="batch")
        found = of.files.retrieve(kept.id)
        content = of.files.content(kept.id)
        return kept.model_dump(), found.model_dump(), hashlib.sha256(content.content).hexdigest()

    kept, found, digest = same(ends, ask)
    assert kept["sha256"] == digest == DIGEST
    assert kept["bytes"] == len(CONTENT)
    assert found == kept


def test_a_download_can_be_written_to_a_file_as_it_comes(ends, tmp_path):
    def ask(of: openai.OpenAI):
        with of.audio.speech.with_streaming_response.create(model="tide-tts", voice="alloy", input="Flut") as response:
            response.stream_to_file(tmp_path / "speech.mp3")
        return (tmp_path / "speech.mp3").read_bytes()

    assert len(same(ends, ask)) == 300_001


@pytest.mark.parametrize("length", [0, 1, 65_535, 65_536, 1_000_000])
def test_uploads_of_any_length_arrive_whole(ends, length):
    def ask(of: openai.OpenAI):
        return of.files.create(file=file(CONTENT[:length], "tides.jsonl"), purpose="batch").model_dump()

    assert same(ends, ask)["bytes"] == length


def test_a_batch_goes_from_its_input_to_its_output(ends):
    def ask(of: openai.OpenAI):
        kept = of.files.create(file=file(CONTENT[:100], "tides.jsonl"), purpose="batch")
        batch = of.batches.create(
            input_file_id=kept.id, endpoint="/v1/chat/completions", completion_window="24h", metadata={"a": "ü"}
        )
        found = of.batches.retrieve(batch.id)
        cancelled = of.batches.cancel(batch.id)
        return [kept.id, batch.model_dump(), found.model_dump(), cancelled.status, of.files.delete(kept.id).deleted]

    assert same(ends, ask)[3:] == ["cancelling", True]
