# The default torch of the package registry runs on CPUs, and on CUDA where the container has a GPU. A smaller build for
# CPUs alone, or one for another CUDA release: docker build --build-arg TORCH_INDEX=URL, an index that PyTorch names.
FROM python:3.12-slim
ARG TORCH_INDEX=""
COPY . /src
RUN python -m pip install --no-cache-dir ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} torch torchvision \
    && python -m pip install --no-cache-dir "/src[serve]" && rm -rf /src
# The root file system may be read-only: only /tmp is written.
ENV HOME=/tmp HF_HOME=/tmp/huggingface PYTHONDONTWRITEBYTECODE=1
VOLUME /tmp
USER 10001:10001
EXPOSE 8000
HEALTHCHECK --start-period=120s CMD ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:8000/healthz', timeout=5)"]
ENTRYPOINT ["unipixel", "serve", "--host", "0.0.0.0"]
CMD ["--api-key", "/run/secrets/api-keys"]
