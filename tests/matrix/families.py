"""The chat templates of the matrix: llama.cpp's collection, its built-in ones, and our own."""

from __future__ import annotations

from typing import Final

JINJA: Final = {
    "apertus": "Apertus-8B-Instruct",
    "command-r7b": "CohereForAI-c4ai-command-r7b-12-2024-tool_use",
    "deepseek-r1-llama": "deepseek-ai-DeepSeek-R1-Distill-Llama-8B",
    "deepseek-r1-qwen": "deepseek-ai-DeepSeek-R1-Distill-Qwen-32B",
    "deepseek-v3.1": "deepseek-ai-DeepSeek-V3.1",
    "deepseek-v3.2": "deepseek-ai-DeepSeek-V3.2",
    "devstral": "unsloth-mistral-Devstral-Small-2507",
    "functionary": "meetkai-functionary-medium-v3.2",
    "gemma-2": "google-gemma-2-2b-it",
    "gemma-4": "google-gemma-4-31B-it",
    "glm-4.6": "GLM-4.6",
    "gpt-oss": "openai-gpt-oss-120b",
    "granite-3.3": "ibm-granite-granite-3.3-2B-Instruct",
    "granite-4": "ibm-granite-granite-4.0",
    "hermes-3": "NousResearch-Hermes-3-Llama-3.1-8B-tool_use",
    "kimi-k2": "moonshotai-Kimi-K2",
    "kimi-k2-thinking": "Kimi-K2-Thinking",
    "lfm2": "LFM2-8B-A1B",
    "llama-3.1": "meta-llama-Llama-3.1-8B-Instruct",
    "llama-3.2": "meta-llama-Llama-3.2-3B-Instruct",
    "llama-3.3": "meta-llama-Llama-3.3-70B-Instruct",
    "minimax-m2": "MiniMax-M2",
    "ministral-3": "mistralai-Ministral-3-14B-Reasoning-2512",
    "mistral-nemo": "mistralai-Mistral-Nemo-Instruct-2407",
    "mistral-small-3.2": "Mistral-Small-3.2-24B-Instruct-2506",
    "nemotron": "NVIDIA-Nemotron-Nano-v2",
    "phi-3.5": "microsoft-Phi-3.5-mini-instruct",
    "qwen-2.5": "Qwen-Qwen2.5-7B-Instruct",
    "qwen-3": "Qwen-Qwen3-0.6B",
    "qwen-3-coder": "Qwen3-Coder",
    "qwen-3.5": "Qwen3.5-4B",
    "seed-oss": "ByteDance-Seed-OSS",
    "smollm-3": "HuggingFaceTB-SmolLM3-3B",
}
"""Files of llama.cpp's `models/templates`, without their suffix."""
BUILT_IN: Final = ("chatml", "llama2", "mistral-v7", "phi2", "zephyr")
"""Values of `template` in a config.json that name no file."""
DEMO: Final = "demo"
FAMILIES: Final = (*JINJA, *BUILT_IN, DEMO)
