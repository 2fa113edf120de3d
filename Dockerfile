# The tag takes Python's security fixes. For a build that never changes, give the digest that you
# have checked: --build-arg PYTHON_IMAGE=python@sha256:...
ARG PYTHON_IMAGE=python:3.13-slim-trixie

FROM ${PYTHON_IMAGE} AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_NO_INPUT=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /src

# The locks come first: the layer of the dependencies outlives a change of the code.
COPY requirements.lock requirements-build.lock ./
# Only nkeys has to be built, by what requirements-build.lock pins.
RUN pip install --only-binary=:all: --require-hashes -r requirements-build.lock \
    && pip wheel --only-binary=:all: --no-binary=nkeys --no-build-isolation --require-hashes \
        --wheel-dir wheels -r requirements.lock \
    && python -m venv --without-pip /opt/gateway \
    && pip --python /opt/gateway install --no-deps --no-index wheels/*.whl

COPY LICENSE README.md pyproject.toml ./
COPY gateway gateway
RUN pip wheel --no-build-isolation --no-deps --wheel-dir dist . \
    && pip --python /opt/gateway install --no-deps --no-index dist/*.whl \
    && /opt/gateway/bin/gateway --version

# The working directory, for the inbox; the only place that is ever written to.
RUN mkdir /data && chown 65532:65532 /data

FROM ${PYTHON_IMAGE}
LABEL org.opencontainers.image.title="clerk-event-gateway" \
      org.opencontainers.image.description="Verified Clerk webhooks into Kafka topics and NATS subjects" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="0.1.0"

COPY --from=build /opt/gateway /opt/gateway
COPY --from=build --chown=65532:65532 /data /var/lib/gateway
# Modules were compiled when they were installed, so a read-only root costs nothing at start.
ENV PATH=/opt/gateway/bin:$PATH PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
WORKDIR /var/lib/gateway
USER 65532:65532

EXPOSE 8080 9090
STOPSIGNAL SIGTERM
# The admin port listens on the container's own loopback unless the config says otherwise.
HEALTHCHECK --interval=10s --timeout=3s --start-period=20s --retries=3 \
    CMD ["python", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:9090/livez', timeout=2)"]

ENTRYPOINT ["gateway"]
CMD ["serve", "--config", "/etc/gateway/config.yaml"]
