// What people ask with the official client for Node, by name.

import { toFile } from 'openai';

const messages = [{ role: 'user', content: 'Wann kommt die Flut? 🌊 \u2028' }];
const chat = { model: 'tide-1', messages };
const parameters = { type: 'object', properties: { place: { type: 'string' } }, required: ['place'] };
const tools = [{ type: 'function', function: { name: 'tide_at', parameters } }];
const schema = { type: 'object', properties: { place: { type: 'string' }, metres: { type: 'number' } } };
const response_format = { type: 'json_schema', json_schema: { name: 'tide', schema } };
const bytes = Buffer.alloc(5_000_001, Buffer.from(Array.from({ length: 251 }, (_, i) => i)));
const answers = { parse: JSON.parse, function: async (args) => `${args.place}: 14:07` };

export const calls = {
  chat: (of) => of.chat.completions.create(chat),
  'chat, unknown fields': (of) =>
    of.chat.completions.create({ ...chat, unheard_of: { ü: [1.5, 1e300, null] } }, { headers: { 'X-Odd': 'a  b' }, query: { 'a b': 'ü&' } }),
  'chat, compressed': (of) => of.chat.completions.create({ ...chat, model: 'tide-gzip' }),
  'chat, reasoning': (of) => of.chat.completions.create({ ...chat, model: 'tide-reason' }),
  'chat, tools': (of) => of.chat.completions.create({ ...chat, tools }),
  'chat, tools run': async (of) => {
    const runnable = [{ type: 'function', function: { ...tools[0].function, ...answers } }];
    const runner = of.chat.completions.runTools({ ...chat, tools: runnable });
    return [await runner.finalContent(), runner.messages];
  },
  'chat, parsed': async (of) => (await of.chat.completions.parse({ ...chat, response_format })).choices,
  'chat, with response': async (of) => {
    const { data, response, request_id } = await of.chat.completions.create(chat).withResponse();
    return [data, response.status, request_id];
  },
  stream: (of) => of.chat.completions.create({ ...chat, stream: true }),
  'stream, usage': (of) => of.chat.completions.create({ ...chat, stream: true, stream_options: { include_usage: true } }),
  'stream, tools': (of) => of.chat.completions.create({ ...chat, stream: true, tools }),
  'stream, compressed': (of) => of.chat.completions.create({ ...chat, model: 'tide-gzip', stream: true }),
  'stream, reasoning': (of) => of.chat.completions.create({ ...chat, model: 'tide-reason', stream: true }),
  'stream, error in it': (of) => of.chat.completions.create({ ...chat, model: 'tide-breaks', stream: true }),
  'stream, gathered': async (of) => of.chat.completions.stream({ ...chat, tools }).finalChatCompletion(),
  'stream, raw': (of) => of.chat.completions.create({ ...chat, stream: true }).asResponse(),
  completions: (of) => of.completions.create({ model: 'tide-1', prompt: 'Ebbe und' }),
  'completions, stream': (of) => of.completions.create({ model: 'tide-1', prompt: 'Ebbe und', stream: true }),
  embeddings: (of) => of.embeddings.create({ model: 'tide-1', input: ['tide', 'gate 🌊'] }),
  'embeddings, floats': (of) => of.embeddings.create({ model: 'tide-1', input: 'tide', encoding_format: 'float' }),
  'embeddings, base64': (of) => of.embeddings.create({ model: 'tide-1', input: 'tide', encoding_format: 'base64' }),
  responses: (of) => of.responses.create({ model: 'tide-1', input: 'Ebbe?' }),
  'responses, stream': (of) => of.responses.create({ model: 'tide-1', input: 'Ebbe?', stream: true }),
  'responses, gathered': async (of) => of.responses.stream({ model: 'tide-1', input: 'Ebbe?' }).finalResponse(),
  'responses, get': (of) => of.responses.retrieve('resp_0001'),
  'responses, delete': (of) => of.responses.delete('resp_0001'),
  file: async (of) => {
    const kept = await of.files.create({ file: await toFile(bytes, 'tides.jsonl'), purpose: 'batch' });
    const content = await of.files.content(kept.id);
    return [kept, content.status, (await content.arrayBuffer()).byteLength, await of.files.retrieve(kept.id)];
  },
  'file, unknown': (of) => of.files.content('file-unknown'),
  'file, delete': (of) => of.files.delete('file-1'),
  speech: (of) => of.audio.speech.create({ model: 'tide-tts', voice: 'alloy', input: 'Flut 🌊' }),
  transcription: async (of) => of.audio.transcriptions.create({ model: 'tide-hears', file: await toFile(bytes, 'ü.mp3') }),
  'transcription, stream': async (of) =>
    of.audio.transcriptions.create({ model: 'tide-hears', file: await toFile(bytes, 'a.mp3'), stream: true }),
  image: (of) => of.images.generate({ model: 'tide-paints', prompt: 'Watt 🌊' }),
  'image, edit': async (of) => of.images.edit({ model: 'tide-paints', prompt: 'Watt', image: await toFile(bytes, 'a.png') }),
  models: (of) => of.models.list(),
  model: (of) => of.models.retrieve('org/tide:2@ü'),
  moderation: (of) => of.moderations.create({ input: 'Sturm' }),
  batch: (of) => of.batches.create({ input_file_id: 'f', endpoint: '/v1/chat/completions', completion_window: '24h' }),
  batches: (of) => of.batches.list({ limit: 1 }),
  'batch, cancel': (of) => of.batches.cancel('batch_1'),
  'unknown, get': (of) => of.get('/unheard/of?b=%20&a=/v1/&a&c=%C3%BC').asResponse(),
  'unknown, post': (of) => of.post('/unheard/of', { body: { ü: [1.5, 1e300] } }),
  'unknown, put bytes': (of) => of.put('/unheard//of/', { body: bytes.subarray(0, 70_001) }).asResponse(),
  'unknown, delete': (of) => of.delete('/unheard', { body: { why: 'not' } }),
  redirect: (of) => of.get('/odd/moved/302/relative').asResponse(),
  'no content': (of) => of.delete('/odd/status/204'),
  'many headers': (of) => of.get('/odd/headers').asResponse(),
  'nothing at all': (of) => of.get('/odd/empty').asResponse(),
  'two megabytes': (of) => of.get('/odd/long').asResponse(),
  'bad question': (of) => of.chat.completions.create({ model: 'tide-1', messages: [] }),
  'a page instead': (of) => of.responses.create({ model: 'html-502', input: '?' }),
  'nothing instead': (of) => of.embeddings.create({ model: 'empty-500', input: '?' }),
  ...Object.fromEntries(
    [400, 401, 403, 404, 409, 422, 429, 500, 503].flatMap((status) => [
      [`status ${status}`, (of) => of.chat.completions.create({ ...chat, model: `status-${status}` })],
      [`status ${status}, stream`, (of) => of.chat.completions.create({ ...chat, model: `status-${status}`, stream: true })],
    ]),
  ),
};
