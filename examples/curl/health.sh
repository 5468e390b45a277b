#!/usr/bin/env bash
# How the server is; it answers at once even when it is busy.
curl -sS --fail-with-body "${MYLLM_URL:-http://localhost:8000}/health"
