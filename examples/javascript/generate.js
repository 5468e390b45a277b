// Let the model go on from a prompt and wait for the whole text.
const axios = require('axios');

const URL = process.env.MYLLM_URL || 'http://localhost:8000';

async function generate(prompt) {
  const { data } = await axios.post(`${URL}/api/generate`, {
    model: 'demo',
    prompt,
    stream: false,
    options: { max_tokens: 100 },
  });
  return data;
}

generate('Explain machine learning:')
  .then(({ text, usage }) => {
    console.log(text.trim());
    console.log(`(${usage.total_tokens} tokens)`);
  })
  .catch((error) => {
    console.error(error.response?.data?.detail ?? error.message);
    process.exitCode = 1;
  });
