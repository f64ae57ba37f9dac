# Targets: service (the default) serves over HTTP and holds neither torch nor a compiler;
# trainer runs the whole command line. RUNTIME=cpu|gpu chooses the flavour of ONNX Runtime.
# Plain instructions only, so that builders without BuildKit take it.
ARG BASE_IMAGE=python:3.11-slim-bookworm

FROM ${BASE_IMAGE} AS service-build
ARG RUNTIME=cpu
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
# The image's own pip fills the environment, which so has none itself.
RUN python -m venv --without-pip /opt/venv
WORKDIR /build
# What we depend on changes less often than our code: it has a layer of its own.
COPY locks ./locks
RUN pip install --require-hashes -r locks/build.txt \
    && pip --python /opt/venv/bin/python install --require-hashes -r "locks/${RUNTIME}.txt"
COPY . .
RUN pip wheel --no-deps --no-build-isolation --wheel-dir /wheels . \
    && pip --python /opt/venv/bin/python install --no-index --no-deps /wheels/*.whl

FROM service-build AS trainer-build
RUN pip --python /opt/venv/bin/python install --require-hashes -r locks/train.txt

FROM ${BASE_IMAGE} AS runtime
# The root file system may be read-only: whatever is temporary goes to /tmp, models to /data (which
# may be read-only too), and what the service remembers to /state.
ENV PATH=/opt/venv/bin:$PATH \
    HOME=/tmp \
    BENTOML_HOME=/data \
    CATALOGAN_DATA_DIR=/state \
    BENTOML_DO_NOT_TRACK=True \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
RUN install -d -o 10001 -g 10001 /data && install -d -m 0700 -o 10001 -g 10001 /state
VOLUME /data /state
WORKDIR /data
# A number, so that an orchestrator can see that it is not root.
USER 10001:10001

FROM runtime AS trainer
COPY --from=trainer-build /opt/venv /opt/venv
ENTRYPOINT ["catalogan"]

FROM runtime AS service
COPY --from=service-build /opt/venv /opt/venv
# Refuses to start without CATALOGAN_API_KEY or CATALOGAN_API_KEY_FILE.
ENV CATALOGAN_CONTAINER=1 PORT=3000
EXPOSE 3000
# Alive, not ready: an empty Model Store is no reason to be restarted. /readyz says the rest.
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 \
    CMD ["python", "-c", "import os, urllib.request as r; r.urlopen('http://127.0.0.1:' + os.environ['PORT'] + '/livez', timeout=4)"]
CMD ["sh", "-c", "exec catalogan serve --host 0.0.0.0 --port \"$PORT\""]
