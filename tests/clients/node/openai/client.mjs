// What the tests want to hear from OpenAI's client for Node.js, as one JSON document.
import OpenAI, { BadRequestError, NotFoundError } from 'openai';

const client = new OpenAI({ baseURL: `${process.env.MYLLM_URL}/v1`, apiKey: 'none', maxRetries: 0 });
const model = 'gpt-4o-mini';
const messages = [{ role: 'user', content: 'What is the capital of France?' }];
const told = {};

told.whole = (await client.chat.completions.create({ model, messages })).choices[0].message.content;

told.streamed = '';
const options = { model, messages, stream: true, stream_options: { include_usage: true } };
for await (const chunk of await client.chat.completions.create(options)) {
  told.streamed += chunk.choices[0]?.delta?.content ?? '';
  told.tokens = chunk.usage?.completion_tokens;
}

const text = await client.completions.create({ model, prompt: 'Once upon a time', max_tokens: 4 });
told.text = text.choices[0].text;

const made = await client.embeddings.create({ model: 'text-embedding-3-small', input: ['Hello'] });
told.dimensions = made.data[0].embedding.length;

told.models = [];
for await (const each of client.models.list()) told.models.push(each.id);

const city = { type: 'object', properties: { city: { enum: ['Paris'] } }, required: ['city'] };
const parsed = await client.chat.completions.parse({
  model,
  messages,
  response_format: { type: 'json_schema', json_schema: { name: 'city', schema: city, strict: true } },
});
told.parsed = parsed.choices[0].message.parsed;

const tools = [{ type: 'function', function: { name: 'weather', parameters: city } }];
const asked = { model: 'gpt-4o', messages, tools, tool_choice: 'required' };
const called = client.chat.completions.stream(asked);
[told.call] = (await called.finalChatCompletion()).choices[0].message.tool_calls;

const numbers = { type: 'array', items: { type: 'integer' }, minItems: 1000 };
const endless = await client.completions.create({
  model, prompt: 'Numbers:', stream: true, max_tokens: 1900, json_schema: numbers,
});
for await (const _ of endless) break; // which closes the connection
told.aborted = endless.controller.signal.aborted;

async function failure(request) {
  return client.chat.completions.create(request).catch((error) => error);
}
const missing = await failure({ model: 'gpt-3', messages });
told.missing = [missing instanceof NotFoundError, missing.code];
const long = await failure({ model, messages: [{ role: 'user', content: 'word '.repeat(5000) }] });
told.long = [long instanceof BadRequestError, long.code];

console.log(JSON.stringify(told));
