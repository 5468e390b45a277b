// A tool loop, an object, a stream and an error through the AI SDK's provider for Anthropic's API.
// Prints the results as JSON.
import { createAnthropic } from "@ai-sdk/anthropic";
import { generateText, Output, stepCountIs, streamText, tool } from "ai";
import { z } from "zod";

const anthropic = createAnthropic({ baseURL: `${process.env.MYLLM_URL}/v1`, apiKey: "none" });
const prompt = "What is the capital of France?";
const shared = { maxRetries: 0, maxOutputTokens: 300, prompt };
const results = {};

const plain = await generateText({ ...shared, model: anthropic("demo") });
results.whole = plain.text;
results.tokens = plain.usage.outputTokens;

const streamed = streamText({ ...shared, model: anthropic("demo") });
results.streamed = "";
for await (const piece of streamed.textStream) results.streamed += piece;
results.streamedTokens = (await streamed.usage).outputTokens;

const weather = tool({
  description: "Of a city.",
  inputSchema: z.object({ city: z.enum(["Paris"]) }),
  execute: async ({ city }) => `It is sunny in ${city}.`,
});
const loop = { ...shared, model: anthropic("agent"), tools: { weather }, stopWhen: stepCountIs(3) };
const agent = await generateText(loop);
results.steps = agent.steps.map((step) => step.toolResults.map((each) => each.output));
results.answer = agent.text;

const agentStream = streamText(loop);
await agentStream.consumeStream();
results.streamedSteps = (await agentStream.steps).map((step) => step.toolCalls.map((c) => c.input));

const thoughtful = await generateText({
  ...shared,
  model: anthropic("thoughts"),
  providerOptions: { anthropic: { thinking: { type: "enabled", budgetTokens: 1024 } } },
});
results.thought = thoughtful.reasoningText;

const output = Output.object({ schema: z.object({ city: z.enum(["Paris"]) }) });
results.object = (await generateText({ ...shared, model: anthropic("agent"), output })).output;
// The provider asks for `output_config.format` only of models whose names it knows.
results.byFormat = (
  await generateText({
    ...shared,
    model: anthropic("claude-sonnet-4-6"),
    output,
    providerOptions: { anthropic: { structuredOutputMode: "outputFormat" } },
  })
).output;

try {
  await generateText({ ...shared, prompt: "word ".repeat(3000), model: anthropic("demo") });
} catch (error) {
  results.long = [error.statusCode, error.message, error.isRetryable];
}

console.log(JSON.stringify(results));
