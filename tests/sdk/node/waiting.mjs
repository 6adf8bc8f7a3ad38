// `node waiting.mjs BASE_URL TIMEOUT_MS`: asks for a stream with so little patience, and prints what it heard. The client
// announces its time-out only where a call names one.

import OpenAI from 'openai';

const [baseURL, timeout] = process.argv.slice(2);
const client = new OpenAI({ baseURL, apiKey: 'sk-test', maxRetries: 0 });
const messages = [{ role: 'user', content: 'Wann kommt die Flut?' }];
const asked = { model: 'tide', messages, stream: true };
const stream = await client.chat.completions.create(asked, { timeout: Number(timeout) });
let content = '';
for await (const chunk of stream) content += chunk.choices[0]?.delta?.content ?? '';
process.stdout.write(JSON.stringify({ content }));
