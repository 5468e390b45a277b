// Print a chat's answer while it is being written.
const fetch = require('node-fetch');

const URL = process.env.MYLLM_URL || 'http://localhost:8000';

// The events of a stream. A chunk may end in the middle of one, or of a character.
async function* events(body) {
  let rest = '';
  body.setEncoding('utf8');
  for await (const chunk of body) {
    const lines = (rest + chunk).split('\n');
    rest = lines.pop();
    for (const line of lines) {
      if (line.startsWith('data: ')) yield JSON.parse(line.slice(6));
    }
  }
}

async function streamChat(messages) {
  const response = await fetch(`${URL}/api/chat`, {
    method: 'POST',
    headers: { 'Content-Type': 'application/json' },
    body: JSON.stringify({ model: 'demo', messages, stream: true }),
  });
  if (!response.ok) throw new Error((await response.json()).detail);

  for await (const event of events(response.body)) {
    if (event.error) throw new Error(event.error);
    if (event.token) process.stdout.write(event.token);
    if (event.done) console.log(`\n(session ${event.session_id})`);
  }
}

streamChat([{ role: 'user', content: 'Tell me a joke' }]).catch((error) => {
  console.error(error.message);
  process.exitCode = 1;
});
