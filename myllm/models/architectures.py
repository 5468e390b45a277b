"""What llama.cpp's numbers and architecture names mean; tables only.

Sources, all in llama.cpp: `include/llama.h` (llama_ftype, llama_pooling_type),
`ggml/include/ggml.h` and `ggml/src/ggml-common.h` (ggml_type and block sizes),
`src/llama-arch.cpp` (architecture names, recurrent and hybrid ones), `src/models/*.cpp`
(which architectures use a sliding window, and its default).
"""

from __future__ import annotations

from typing import Final

QUANTIZATIONS: Final[dict[int, str]] = {
    0: "F32",
    1: "F16",
    2: "Q4_0",
    3: "Q4_1",
    7: "Q8_0",
    8: "Q5_0",
    9: "Q5_1",
    10: "Q2_K",
    11: "Q3_K_S",
    12: "Q3_K_M",
    13: "Q3_K_L",
    14: "Q4_K_S",
    15: "Q4_K_M",
    16: "Q5_K_S",
    17: "Q5_K_M",
    18: "Q6_K",
    19: "IQ2_XXS",
    20: "IQ2_XS",
    21: "Q2_K_S",
    22: "IQ3_XS",
    23: "IQ3_XXS",
    24: "IQ1_S",
    25: "IQ4_NL",
    26: "IQ3_S",
    27: "IQ3_M",
    28: "IQ2_S",
    29: "IQ2_M",
    30: "IQ4_XS",
    31: "IQ1_M",
    32: "BF16",
    36: "TQ1_0",
    37: "TQ2_0",
    38: "MXFP4",
    39: "NVFP4",
    40: "Q1_0",
    41: "Q2_0",
}
"""`general.file_type` (llama_ftype) as people write it."""

TENSOR_BLOCKS: Final[dict[int, tuple[int, int]]] = {
    0: (1, 4),  # F32
    1: (1, 2),  # F16
    2: (32, 18),  # Q4_0
    3: (32, 20),  # Q4_1
    6: (32, 22),  # Q5_0
    7: (32, 24),  # Q5_1
    8: (32, 34),  # Q8_0
    9: (32, 36),  # Q8_1
    10: (256, 84),  # Q2_K
    11: (256, 110),  # Q3_K
    12: (256, 144),  # Q4_K
    13: (256, 176),  # Q5_K
    14: (256, 210),  # Q6_K
    15: (256, 292),  # Q8_K
    16: (256, 66),  # IQ2_XXS
    17: (256, 74),  # IQ2_XS
    18: (256, 98),  # IQ3_XXS
    19: (256, 50),  # IQ1_S
    20: (32, 18),  # IQ4_NL
    21: (256, 110),  # IQ3_S
    22: (256, 82),  # IQ2_S
    23: (256, 136),  # IQ4_XS
    24: (1, 1),  # I8
    25: (1, 2),  # I16
    26: (1, 4),  # I32
    27: (1, 8),  # I64
    28: (1, 8),  # F64
    29: (256, 56),  # IQ1_M
    30: (1, 2),  # BF16
    34: (256, 54),  # TQ1_0
    35: (256, 66),  # TQ2_0
    39: (32, 17),  # MXFP4
    40: (64, 36),  # NVFP4
    41: (128, 18),  # Q1_0
    42: (64, 18),  # Q2_0
}
"""ggml_type: how many weights one block holds, and its size in bytes."""

POOLING_TYPES: Final[dict[int, str]] = {0: "none", 1: "mean", 2: "cls", 3: "last", 4: "rank"}

EMBEDDING_ONLY: Final = frozenset(
    {
        "bert",
        "eurobert",
        "gemma-embedding",
        "jina-bert-v2",
        "jina-bert-v3",
        "llama-embed",
        "modern-bert",
        "neo-bert",
        "nomic-bert",
        "nomic-bert-moe",
        "t5encoder",
    }
)
"""Encoders: they turn a text into a vector and cannot generate."""

MEMORYLESS: Final = EMBEDDING_ONLY - {"llama-embed", "t5encoder"}
"""Encoders that see a whole text at once and keep nothing of it (llama.cpp, `create_memory` in
`src/llama-model.cpp`); the others keep keys and values."""

NOT_MODELS: Final = frozenset({"clip", "mmproj", "adapter", "imatrix"})
"""GGUF files that complement a model (projectors, LoRA adapters, ...) but are not models."""

RECURRENT: Final = frozenset(
    {
        # state space models and RWKV
        "arwkv7",
        "mamba",
        "mamba2",
        "rwkv6",
        "rwkv6qwen2",
        "rwkv7",
        # hybrids: some of their layers keep a running state instead of keys and values
        "bailingmoe3",
        "deepseek4",
        "falcon-h1",
        "glm5-next",
        "granitehybrid",
        "jamba",
        "kimi-k3",
        "kimi-linear",
        "lfm2",
        "lfm2moe",
        "minimax-01",
        "nemotron_h",
        "nemotron_h_moe",
        "plamo2",
        "qwen35",
        "qwen35moe",
        "qwen3next",
        "qwen4exp",
    }
)
"""Architectures with a running state that cannot be rewound."""

DEFAULT_WINDOWS: Final[dict[str, int]] = {
    "exaone-moe": 128,
    "gemma2": 4096,
    "llama4": 8192,
    "smallthinker": 4096,
}
"""Sliding windows that llama.cpp assumes when the file does not give one."""

WINDOW_IGNORED: Final = frozenset({"phi3", "phimoe"})
"""Architectures whose sliding window llama.cpp reads but does not use."""
