// `node compare.mjs BASE_URL h1|h2`: makes every call and prints what came of it, by name, and which HTTP was spoken.
// The authority of a certificate comes as people give it to Node, in NODE_EXTRA_CA_CERTS.

import diagnostics from 'node:diagnostics_channel';
import { readFileSync } from 'node:fs';
import OpenAI from 'openai';
import { Agent, H2CClient } from 'undici';
import { calls } from './calls.mjs';
import { noting, outcome } from './outcome.mjs';

const [baseURL, version] = process.argv.slice(2);
const heads = [];
const spoken = new Set();
diagnostics.subscribe('undici:client:connected', ({ connectParams }) => spoken.add(connectParams.version));

// HTTP/1.1 is what Node's own fetch speaks; for HTTP/2 it is handed another dispatcher.
function dispatcher() {
  if (version === 'h1') return undefined;
  if (baseURL.startsWith('http:')) return new H2CClient(new URL(baseURL).origin);
  return new Agent({ allowH2: true, connect: { ca: readFileSync(process.env.NODE_EXTRA_CA_CERTS) } });
}

const client = new OpenAI({
  baseURL,
  apiKey: 'sk-test',
  maxRetries: 0,
  timeout: 60_000,
  fetch: noting(heads),
  fetchOptions: { dispatcher: dispatcher() },
});

const outcomes = {};
for (const [name, call] of Object.entries(calls)) outcomes[name] = await outcome(call, client, heads);
await new Promise((done) => process.stdout.write(JSON.stringify({ outcomes, spoken: [...spoken] }), done));
process.exit(0); // kept connections would keep it
