#!/usr/bin/env bash
# Ask a question.
curl -sS --fail-with-body -X POST "${MYLLM_URL:-http://localhost:8000}/api/chat" \
  -H 'Content-Type: application/json' \
  -d '{
    "model": "demo",
    "messages": [{"role": "user", "content": "What is the capital of France?"}],
    "stream": false
  }'
