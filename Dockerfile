# MyLLM with a compiled llama-server, for the CPU or for CUDA.
#
#   docker build -t myllm .                        for any CPU of this architecture
#   docker compose build                           for CUDA, with the base images that
#                                                  docker-compose.yml names
#
# A custom BASE_IMAGE needs apt, and Python 3.11 or newer as python3. RUNTIME_IMAGE must have the
# same Python and C library, because the build copies the virtual environment and engine into it.

ARG BASE_IMAGE=debian:bookworm-slim
ARG RUNTIME_IMAGE=${BASE_IMAGE}

FROM ${BASE_IMAGE} AS build

ENV DEBIAN_FRONTEND=noninteractive PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN apt-get update \
    && apt-get install -y --no-install-recommends \
        ca-certificates cmake g++ ninja-build python3 python3-venv \
    && rm -rf /var/lib/apt/lists/*

# The files that change least come first, so that an edit of the source reuses the layers above it.
WORKDIR /src
COPY requirements.lock ./
RUN python3 -m venv /opt/myllm/venv \
    && /opt/myllm/venv/bin/python -m pip install --require-hashes -r requirements.lock

# Compiling the engine takes minutes for the CPU and far longer for CUDA. This step copies only the
# parts of MyLLM that it needs, so that a change of the server does not repeat it.
COPY vendor/llama.cpp/pin.toml vendor/llama.cpp/
COPY myllm/__init__.py myllm/__main__.py myllm/cgroups.py myllm/cpus.py myllm/
COPY myllm/durations.py myllm/errors.py myllm/escaping.py myllm/home.py myllm/limits.py myllm/
COPY myllm/settings.py myllm/settings_files.py myllm/settings_network.py myllm/settings_types.py myllm/standard_streams.py myllm/
COPY myllm/cli/ myllm/cli/
COPY myllm/engine/ myllm/engine/
# The self-check after compiling uses this model, and so does the one at the first start.
COPY myllm/models/builtin/demo/demo.gguf myllm/models/builtin/demo/
# BACKEND: cpu or cuda. CUDA_ARCHS: a list such as "86;90"; by default llama.cpp's own list of all
# common architectures, which takes longest. JOBS: parallel compilers, by default one per CPU.
ARG BACKEND=cpu
ARG CUDA_ARCHS=
ARG JOBS=
RUN MYLLM_CACHE_DIR=/opt/myllm/cache /opt/myllm/venv/bin/python -m myllm engine build \
        --backend "$BACKEND" --portable \
        ${CUDA_ARCHS:+--cuda-archs "$CUDA_ARCHS"} ${JOBS:+--jobs "$JOBS"}

COPY pyproject.toml README.md LICENSE ./
COPY myllm/ myllm/
# Nothing needs pip after this step, so remove it.
RUN /opt/myllm/venv/bin/python -m pip install --no-deps . \
    && /opt/myllm/venv/bin/python -m pip uninstall -y pip setuptools


FROM ${RUNTIME_IMAGE}

RUN apt-get update \
    && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends \
        ca-certificates libgomp1 libstdc++6 python3 \
    && rm -rf /var/lib/apt/lists/* \
    && groupadd --gid 10001 myllm \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /state \
        --shell /usr/sbin/nologin myllm \
    && install -d -o myllm -g myllm -m 0755 /models /state \
    && install -d -o myllm -g myllm -m 0700 /run/myllm

# Owned by root: the server can neither change its own code nor its engine.
COPY --from=build /opt/myllm/cache/engines /opt/myllm/cache/engines
COPY --from=build /opt/myllm/venv /opt/myllm/venv

# The server listens on all addresses inside the container; publishing the port decides who can
# reach it. So it needs an API key, or MYLLM_ALLOW_ANONYMOUS=true. The path of the runtime directory is short, because Unix sockets are in it.
ENV PATH=/opt/myllm/venv/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    MYLLM_HOST=0.0.0.0 \
    MYLLM_PORT=8000 \
    MYLLM_MODELS_DIR=/models \
    MYLLM_DATA_DIR=/state/data \
    MYLLM_STATE_DIR=/state \
    MYLLM_CACHE_DIR=/opt/myllm/cache \
    MYLLM_RUNTIME_DIR=/run/myllm

USER myllm
WORKDIR /state
VOLUME ["/models", "/state"]
EXPOSE 8000

# http.client, because urllib would use a proxy from the environment.
HEALTHCHECK --interval=15s --timeout=5s --start-period=30s --retries=3 \
    CMD ["python3", "-c", "import http.client as h, os, ssl, sys; at = '127.0.0.1', int(os.environ['MYLLM_PORT']); c = h.HTTPSConnection(*at, timeout=4, context=ssl._create_unverified_context()) if os.environ.get('MYLLM_TLS_CERT') else h.HTTPConnection(*at, timeout=4); c.request('GET', '/health/ready'); sys.exit(c.getresponse().status != 200)"]

# On SIGTERM the server drains: running answers get MYLLM_DRAIN_GRACE seconds.
STOPSIGNAL SIGTERM
ENTRYPOINT ["myllm"]
CMD ["serve"]
