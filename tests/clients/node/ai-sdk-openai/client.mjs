// What the tests want to hear from Vercel's AI SDK with its providers for OpenAI, as one JSON
// document. The SDK itself runs the tools and sends their results.
import { createOpenAI } from '@ai-sdk/openai';
import { createOpenAICompatible } from '@ai-sdk/openai-compatible';
import { embed, generateObject, generateText, stepCountIs, streamObject, streamText, tool } from 'ai';
import { z } from 'zod';

const baseURL = `${process.env.MYLLM_URL}/v1`;
const openai = createOpenAI({ baseURL, apiKey: 'none' });
const compatible = createOpenAICompatible({
  name: 'myllm', baseURL, includeUsage: true, supportsStructuredOutputs: true,
});
const models = {
  responses: openai.responses('gpt-4o'),
  chat: openai.chat('gpt-4o'),
  compatible: compatible.chatModel('gpt-4o'),
};
const prompt = 'What is the capital of France?';
const schema = z.object({ city: z.enum(['Paris']) });

/** Returns what a loop of two steps did, and how often its tool ran. */
async function loop(model, begin) {
  const weather = { runs: 0 };
  const tools = {
    weather: tool({
      description: 'Of a city.',
      inputSchema: schema,
      execute: async ({ city }) => {
        weather.runs += 1;
        return { city, degrees: 21 };
      },
    }),
  };
  const result = await begin({
    model, prompt, tools, stopWhen: stepCountIs(2), maxRetries: 0, maxOutputTokens: 200,
  });
  const [first, second] = await result.steps;
  return {
    runs: weather.runs,
    calls: first.toolCalls.map(({ toolName, input }) => [toolName, input]),
    results: first.toolResults.map(({ output }) => output),
    reason: first.finishReason,
    read: [first.usage.inputTokens, second.usage.inputTokens],
    written: second.usage.outputTokens,
  };
}

async function streamed(options) {
  const errors = [];
  const result = streamText({ ...options, onError: ({ error }) => errors.push(error) });
  for await (const _ of result.fullStream);
  if (errors.length) throw errors[0];
  return result;
}

const told = {};
for (const [name, model] of Object.entries(models)) {
  const whole = await loop(model, generateText);
  const asStream = await loop(model, streamed);
  const { object } = await generateObject({ model, prompt, schema, maxRetries: 0 });
  const partial = streamObject({ model, prompt, schema });
  let parts = 0;
  for await (const _ of partial.partialObjectStream) parts += 1;
  told[name] = { whole, asStream, object, streamedObject: await partial.object, parts };
}
const { embedding } = await embed({ model: openai.embedding('demo'), value: 'Hello' });
told.dimensions = embedding.length;
console.log(JSON.stringify(told));
