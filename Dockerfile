# CPU:   docker build -t ldae .
# CUDA:  docker build -t ldae-cuda --build-arg TORCH_INDEX=https://download.pytorch.org/whl/cu130 .
# Run:   docker run --rm -v "$PWD:/data" ldae encode head.nii.gz --out codes.parquet     (CUDA: with --gpus all)
FROM python:3.13-slim

# Wheels of torch: for CUDA, the index that pytorch.org names for your driver.
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu

WORKDIR /opt/ldae
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY configs configs
COPY data_manifests/maps data_manifests/maps
COPY ldae ldae
# torch first: the pinned version of that index satisfies the constraints, so pip does not exchange it.
RUN pip install --no-cache-dir "$(grep -o '^torch==[0-9.]*' constraints.txt)" --index-url "$TORCH_INDEX" \
    && pip install --no-cache-dir ".[dicom,excel]" -c constraints.txt
RUN ldae --version

WORKDIR /data
ENTRYPOINT ["ldae"]
