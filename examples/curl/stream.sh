#!/usr/bin/env bash
# Print a text while it is being written; without -N curl would keep the events back.
set -euo pipefail
url="${MYLLM_URL:-http://localhost:8000}"

curl -sSN --fail-with-body "$url/api/generate" -H 'Content-Type: application/json' -d '{
  "model": "demo",
  "prompt": "Write a poem about AI:"
}' | sed -un 's/^data: //p' | jq -j --unbuffered '.token // .error // "\n"'
