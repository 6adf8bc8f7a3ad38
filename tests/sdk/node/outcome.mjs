// What a client made of a call, as JSON that compares: the value or the error, and the heads of the answers it got.

import { createHash } from 'node:crypto';
import OpenAI from 'openai';

export async function outcome(call, client, heads) {
  heads.length = 0;
  let said;
  try {
    said = { value: await plain(await call(client)) };
  } catch (error) {
    if (!(error instanceof OpenAI.APIError)) throw error;
    const { name, message, status, code, param, type, requestID } = error;
    said = { error: { kind: error.constructor.name, name, message, status, code, param, type, requestID, body: error.error } };
  }
  return { ...said, heads: [...heads] };
}

// A fetch that notes the heads of answers. The client tries it on a `data:` URL first, which goes nowhere.
export function noting(heads) {
  return async (url, init) => {
    const response = await fetch(url, init);
    if (!String(url).startsWith('data:')) heads.push({ status: response.status, headers: [...response.headers] });
    return response;
  };
}

async function plain(value) {
  if (value instanceof Response) return { status: value.status, bytes: digest(await value.arrayBuffer()) };
  if (value instanceof ArrayBuffer || ArrayBuffer.isView(value)) return digest(value);
  if (value && typeof value[Symbol.asyncIterator] === 'function') {
    const items = [];
    for await (const item of value) items.push(item);
    return { items };
  }
  return value ?? null;
}

export function digest(bytes) {
  const buffer = Buffer.from(bytes);
  return { length: buffer.length, sha256: createHash('sha256').update(buffer).digest('hex') };
}
