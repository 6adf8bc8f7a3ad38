// `node streams.mjs BASE_URL`: asks for the streams that stdin names, one after the other, and prints what came of each.

import { readFileSync } from 'node:fs';
import OpenAI from 'openai';

const [baseURL] = process.argv.slice(2);
const client = new OpenAI({ baseURL, apiKey: 'sk-test', maxRetries: 0, timeout: 60_000 });
const messages = [{ role: 'user', content: 'Wann kommt die Flut? 🌊' }];

const routes = {
  chat: {
    ask: (model, options) => client.chat.completions.create({ model, messages, stream: true }, options),
    text: (chunk) => chunk.choices[0]?.delta?.content ?? '',
  },
  completions: {
    ask: (model, options) => client.completions.create({ model, prompt: 'Ebbe und', stream: true }, options),
    text: (chunk) => chunk.choices[0]?.text ?? '',
  },
  responses: {
    ask: (model, options) => client.responses.create({ model, input: 'Ebbe?', stream: true }, options),
    text: (event) => (event.type === 'response.output_text.delta' ? event.delta : ''),
  },
};

async function outcome({ route, model, headers }) {
  const said = { text: '', ids: [], error: null };
  try {
    for await (const chunk of await routes[route].ask(model, { headers })) {
      if (chunk.id && chunk.id !== said.ids.at(-1)) {
        said.ids.push(chunk.id);
        said.text = ''; // another id is another answer
      }
      said.text += routes[route].text(chunk);
    }
  } catch (error) {
    if (!(error instanceof OpenAI.APIError)) throw error;
    const { message, code } = error;
    said.error = { kind: error.constructor.name, message, code, status: error.error?.status ?? error.status };
  }
  return said;
}

const outcomes = [];
for (const ask of JSON.parse(readFileSync(0, 'utf8'))) outcomes.push(await outcome(ask));
await new Promise((done) => process.stdout.write(JSON.stringify(outcomes), done));
process.exit(0);
