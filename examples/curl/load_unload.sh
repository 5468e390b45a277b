#!/usr/bin/env bash
# Load a model before anybody asks for it, and give its memory back.
set -e
url="${MYLLM_URL:-http://localhost:8000}"
curl -sS --fail-with-body -X POST "$url/api/models/demo/load"
echo
curl -sS --fail-with-body -X POST "$url/api/models/demo/unload"
