"""Find the texts that are nearest to a question."""

import os

import numpy as np
import requests

URL = os.environ.get("MYLLM_URL", "http://localhost:8000")

TEXTS = [
    "How do I stop the server?",
    "What is the capital of Italy?",
    "Tell me a joke.",
    "How do I download a model?",
    "Why is the sky blue?",
]


def embed(text):
    answer = requests.post(f"{URL}/api/embeddings", json={"model": "demo", "input": text})
    answer.raise_for_status()
    return np.array(answer.json()["embedding"])


def cosine(a, b):
    return np.dot(a, b) / (np.linalg.norm(a) * np.linalg.norm(b))


def search(question, texts, best=3):
    wanted = embed(question)
    scored = [(cosine(wanted, embed(text)), text) for text in texts]
    return sorted(scored, reverse=True)[:best]


for score, text in search("What is the capital of France?", TEXTS):
    print(f"{score:.3f}  {text}")
