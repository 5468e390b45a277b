# MyLLM with a compiled llama-server, for the CPU or for CUDA.
#
#   docker build -t myllm .                        the CPU, any of this architecture
#   docker compose build                           CUDA; docker-compose.yml names the base images
#
# A BASE_IMAGE of your own needs apt and Python 3.11 or newer as python3. RUNTIME_IMAGE must have
# the same Python and C library, since the virtual environment and the engine are copied into it.

ARG BASE_IMAGE=debian:bookworm-slim
ARG RUNTIME_IMAGE=${BASE_IMAGE}

FROM ${BASE_IMAGE} AS build

ENV DEBIAN_FRONTEND=noninteractive PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN apt-get update \
    && apt-get install -y --no-install-recommends \
        ca-certificates cmake g++ ninja-build python3 python3-venv \
    && rm -rf /var/lib/apt/lists/*

# What changes least comes first, so that an edit of the source reuses what is above it.
WORKDIR /src
COPY requirements.lock ./
RUN python3 -m venv /opt/myllm/venv \
    && /opt/myllm/venv/bin/python -m pip install --require-hashes -r requirements.lock

# The engine takes minutes with a CPU and far longer with CUDA. It is compiled from no more of
# MyLLM than compiling needs, so that work on the server does not compile it again.
COPY vendor/llama.cpp/pin.toml vendor/llama.cpp/
COPY myllm/__init__.py myllm/__main__.py myllm/cgroups.py myllm/cpus.py myllm/
COPY myllm/durations.py myllm/errors.py myllm/escaping.py myllm/home.py myllm/
COPY myllm/settings.py myllm/settings_files.py myllm/settings_types.py myllm/standard_streams.py myllm/
COPY myllm/cli/ myllm/cli/
COPY myllm/engine/ myllm/engine/
# The engine is checked with this model when it is compiled, and again where it first runs.
COPY myllm/models/builtin/demo/demo.gguf myllm/models/builtin/demo/
# cpu or cuda. CUDA_ARCHS is a list such as "86;90"; llama.cpp's own, which has all common
# architectures and takes longest, without it. JOBS: compilers at once, one per CPU without it.
ARG BACKEND=cpu
ARG CUDA_ARCHS=
ARG JOBS=
RUN MYLLM_CACHE_DIR=/opt/myllm/cache /opt/myllm/venv/bin/python -m myllm engine build \
        --backend "$BACKEND" --portable \
        ${CUDA_ARCHS:+--cuda-archs "$CUDA_ARCHS"} ${JOBS:+--jobs "$JOBS"}

COPY pyproject.toml README.md LICENSE ./
COPY myllm/ myllm/
# Afterwards pip has nothing left to do, and goes.
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

# Listening everywhere means inside of the container; what of it others reach is for the one to
# say who publishes the port. The runtime directory's path is short because Unix sockets are in it.
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

# http.client, because urllib would ask a proxy that the environment names.
HEALTHCHECK --interval=15s --timeout=5s --start-period=30s --retries=3 \
    CMD ["python3", "-c", "import http.client, os, sys; c = http.client.HTTPConnection('127.0.0.1', int(os.environ['MYLLM_PORT']), timeout=4); c.request('GET', '/health'); sys.exit(c.getresponse().status != 200)"]

# SIGTERM drains: running answers get MYLLM_DRAIN_GRACE seconds.
STOPSIGNAL SIGTERM
ENTRYPOINT ["myllm"]
CMD ["serve"]
