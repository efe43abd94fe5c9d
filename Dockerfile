# The registry's images, and an image of the simulated AWS.
#
#   docker build -t tariff-registry .                              API or migrations, by its command
#   docker build -t tariff-registry-worker --target worker .       the worker
#   docker build -t tariff-registry-simcloud --target simcloud .   the simulated AWS with the training pipeline
#
# Both have the layout of a checkout in /srv/registry, because the migrations are found beside the code.

FROM python:3.11-slim AS base
ENV PATH=/opt/environment/bin:$PATH \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_NO_CACHE_DIR=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
RUN useradd --uid 10001 --create-home registry
WORKDIR /srv/registry

# Only the dependencies, so that a change of the code does not install them again.
FROM base AS service-dependencies
RUN python -m venv /opt/environment
COPY pyproject.toml constraints.txt README.md ./
RUN pip install -c constraints.txt ".[service]"

FROM service-dependencies AS simcloud-dependencies
# The CPU build of torch is 10 times smaller than the one for GPUs. Its versions end in "+cpu". A constraint
# without this ending allows them, and pip prefers them.
ARG TORCH_INDEX_URL=https://download.pytorch.org/whl/cpu
# A simulated instance provides git. Its version follows the base image.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends git \
    && rm -rf /var/lib/apt/lists/*
RUN pip install -c constraints.txt --extra-index-url "$TORCH_INDEX_URL" ".[service,training,local]"

FROM simcloud-dependencies AS simcloud
COPY . .
# A volume that is mounted here takes over the owner.
RUN pip install --no-deps -e . && install -d -o registry -g registry /state
USER 10001
EXPOSE 5555
HEALTHCHECK --interval=5s --timeout=3s --start-period=30s --retries=10 \
    CMD ["python", "-c", "import socket; socket.create_connection(('127.0.0.1', 5555), 2)"]
CMD ["python", "-m", "local.simcloud", "--host", "0.0.0.0", "--port", "5555", "--ssh-port", "2222", "--state", "/state", "--repository", "/repository"]

FROM service-dependencies AS worker-dependencies
RUN pip install -c constraints.txt ".[service,worker]"

FROM worker-dependencies AS worker
COPY . .
RUN pip install --no-deps -e .
USER 10001
CMD ["tariff-registry", "worker"]

FROM service-dependencies AS service
COPY . .
RUN pip install --no-deps -e .
USER 10001
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=3s --start-period=20s --retries=3 \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/healthz', timeout=2)"]
CMD ["tariff-registry", "api", "--host", "0.0.0.0", "--port", "8000"]
