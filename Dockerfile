# docker build -t colipri .                                 or --build-arg EXTRAS="[reports,writers,onnx]"
# docker run --rm --gpus all --shm-size 8g -v /data:/data colipri colipri_train --help
# Any command takes the place of colipri_train; the three folders are below /data.
FROM python:3.12-slim

# The libraries behind SimpleITK, torch.compile and matplotlib that the slim image leaves out
RUN apt-get update \
    && apt-get install --yes --no-install-recommends gcc libc6-dev libgomp1 \
    && rm -rf /var/lib/apt/lists/*

WORKDIR /src
COPY pyproject.toml setup.py README.md LICENSE ./
COPY colipri colipri
COPY dataset_conversion dataset_conversion
ARG EXTRAS=""
RUN pip install --no-cache-dir ".${EXTRAS}"

# Not root: what the container writes belongs to this user (docker run --user changes it)
RUN useradd --create-home colipri \
    && mkdir -p /data/colipri_raw /data/colipri_preprocessed /data/colipri_results \
    && chown -R colipri /data
USER colipri
WORKDIR /home/colipri
ENV colipri_raw=/data/colipri_raw \
    colipri_preprocessed=/data/colipri_preprocessed \
    colipri_results=/data/colipri_results
CMD ["colipri_quickstart", "--help"]
