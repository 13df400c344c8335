# One image for both stages: a virtual environment only works with the interpreter that made it.
ARG PYTHON_IMAGE=python:3.13.15-slim-trixie

FROM ${PYTHON_IMAGE} AS build
WORKDIR /src
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
# Dependencies first: this layer stays as long as the locks do. Nothing is compiled, and nothing comes unverified. The
# environment has no pip of its own, so that the image holds only what runs.
COPY requirements.lock requirements-build.lock ./
RUN python -m venv --without-pip /opt/walbatch \
 && python -m pip --python /opt/walbatch/bin/python install --require-hashes --only-binary :all: -r requirements.lock \
 && python -m pip install --require-hashes --only-binary :all: -r requirements-build.lock
COPY pyproject.toml MANIFEST.in README.md LICENSE ./
COPY walbatch/ walbatch/
COPY cli/ cli/
COPY migrations/ migrations/
RUN python -m pip wheel --no-deps --no-build-isolation --wheel-dir /tmp/wheel . \
 && python -m pip --python /opt/walbatch/bin/python install --no-deps --no-index --find-links /tmp/wheel walbatch

FROM ${PYTHON_IMAGE}
LABEL org.opencontainers.image.title="walbatch" \
      org.opencontainers.image.description="A durable, write-ahead-logged batcher for product analytics: gRPC in, Mixpanel out" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /opt/walbatch /opt/walbatch
# Everything was compiled at install, so nothing has to be written outside /data: the root file system may be read-only.
# Ports are opened to the container's network; the admin port stays on its loopback address.
ENV PATH=/opt/walbatch/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    WALBATCH_DATA_DIR=/data \
    WALBATCH_GRPC_LISTEN=0.0.0.0:50051
# A named volume takes owner and mode from this directory the first time that it is mounted.
RUN install -d -o 65532 -g 65532 -m 0700 /data
# By number, so that an orchestrator can tell that it is not root.
USER 65532:65532
# Debian's SQLite has the WAL-reset bug; the one that will run must not. 3.52.0 was withdrawn.
RUN ["python", "-c", "from pysqlite3 import dbapi2 as s; v = s.sqlite_version_info; assert v >= (3, 51, 3) and v != (3, 52, 0), v"]
RUN ["walbatch", "version"]
VOLUME /data
EXPOSE 50051
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=15s --timeout=5s --start-period=30s --retries=3 CMD ["walbatch", "health"]
ENTRYPOINT ["walbatch"]
CMD ["serve"]
