#!/usr/bin/env bash
# Let the model go on from a prompt.
curl -sS --fail-with-body -X POST "${MYLLM_URL:-http://localhost:8000}/api/generate" \
  -H 'Content-Type: application/json' \
  -d '{
    "model": "demo",
    "prompt": "The capital of France is",
    "stream": false
  }'
