// `node realtime.mjs BASE_URL`: talks over both realtime clients, that of `ws` and that of Node itself, and prints what each
// heard, and how the provider closed it.

import OpenAI from 'openai';
import { OpenAIRealtimeWebSocket } from 'openai/realtime/websocket';
import { OpenAIRealtimeWS } from 'openai/realtime/ws';

const [baseURL] = process.argv.slice(2);
const client = new OpenAI({ baseURL, apiKey: 'sk-test' });
const audio = Buffer.alloc(600_000, 'Ebbe 🌊').toString('base64');

// What is said next, once an event of that type was heard.
const script = {
  'session.created': { type: 'session.update', session: { type: 'realtime', instructions: 'kurz 🌊' } },
  'session.updated': { type: 'input_audio_buffer.append', audio },
  'input_audio_buffer.committed': { type: 'response.create' },
  'response.done': { type: 'unheard.of' },
  error: { type: 'close', code: 4001, reason: 'Flut 🌊' },
};

function talk(realtime) {
  const heard = [];
  const errors = [];
  realtime.on('error', (error) => errors.push(error.message));
  realtime.on('event', (event) => {
    heard.push(event);
    if (script[event.type]) realtime.send(script[event.type]);
  });
  return new Promise((done) => {
    realtime.socket.addEventListener('close', ({ code, reason }) => done({ heard, errors, code, reason }));
  });
}

const ws = await talk(new OpenAIRealtimeWS({ model: 'tide-rt' }, client));
const native = await talk(new OpenAIRealtimeWebSocket({ model: 'tide-rt' }, client));
await new Promise((done) => process.stdout.write(JSON.stringify({ ws, native }), done));
process.exit(0);
