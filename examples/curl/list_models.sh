#!/usr/bin/env bash
# The names of the models on disk; needs jq.
set -o pipefail
curl -sS --fail-with-body "${MYLLM_URL:-http://localhost:8000}/api/models" | jq -r '.models[].name'
