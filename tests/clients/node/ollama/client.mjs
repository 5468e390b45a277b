// Uses Ollama's client in the ways that programs do, and prints what came out as JSON.
import { Ollama } from 'ollama'

const [chatModel, toolModel] = process.argv.slice(2)
const host = `${process.env.MYLLM_URL}/ollama`
const client = new Ollama({ host })
const asked = [{ role: 'user', content: 'What is the capital of France?' }]
const results = {}

const whole = await client.chat({ model: chatModel, messages: asked })
results.whole = whole.message.content
results.tokens = whole.eval_count

results.streamed = ''
for await (const part of await client.chat({ model: chatModel, messages: asked, stream: true })) {
  results.streamed += part.message.content
}

const generated = await client.generate({ model: chatModel, prompt: asked[0].content })
results.generated = generated.response

const parameters = { type: 'object', required: ['city'], properties: { city: { enum: ['Paris'] } } }
const tools = [{ type: 'function', function: { name: 'weather', description: '', parameters } }]
const messages = [...asked]
const options = { num_predict: 24 }
const first = await client.chat({ model: toolModel, messages, tools })
results.calls = first.message.tool_calls
messages.push(first.message)
for (const call of first.message.tool_calls) {
  messages.push({ role: 'tool', tool_name: call.function.name, content: 'It is sunny.' })
}
const second = await client.chat({ model: toolModel, messages, tools, options })
results.second = [second.done, second.prompt_eval_count - first.prompt_eval_count]

let streamed = []
for await (const part of await client.chat({ model: toolModel, messages: asked, tools, stream: true })) {
  streamed = [...streamed, ...(part.message.tool_calls ?? [])]
}
results.streamedCalls = streamed

const format = { type: 'object', required: ['n'], properties: { n: { enum: [7] } } }
const formatted = await client.chat({ model: chatModel, messages: asked, format })
results.formatted = JSON.parse(formatted.message.content)

const embedded = await client.embed({ model: chatModel, input: ['Hello', 'Goodbye'] })
results.dimensions = embedded.embeddings.map((vector) => vector.length)

results.models = (await client.list()).models.map((model) => model.name)
results.capabilities = (await client.show({ model: toolModel })).capabilities
results.running = (await client.ps()).models.map((model) => model.name)

try {
  await client.chat({ model: 'nope', messages: asked })
} catch (error) {
  results.missing = [error.name, error.status_code]
}

const leaving = new Ollama({ host })
try {
  const counting = [{ role: 'user', content: 'Count to one hundred.' }]
  for await (const part of await leaving.chat({ model: chatModel, messages: counting, stream: true })) {
    leaving.abort()
  }
} catch (error) {
  results.aborted = error.name
}

console.log(JSON.stringify(results))
