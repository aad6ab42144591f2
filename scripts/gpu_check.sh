#!/usr/bin/env bash
# Check every backend on a machine with an NVIDIA GPU, most valuable first; docs/gpu.md explains it.
#
#   scripts/gpu_check.sh all        set up, then all calls below: about 40 minutes
#   scripts/gpu_check.sh setup      .venv with everything that can run here
#   scripts/gpu_check.sh first      what there is, the bundles, the tests of the GPU     (4 minutes)
#   scripts/gpu_check.sh fp32       PyTorch, as written, compiled, as CUDA graphs        (8 minutes)
#   scripts/gpu_check.sh fp16       the same in float16                                  (8 minutes)
#   scripts/gpu_check.sh ort        ONNX Runtime's CUDA provider, both forms of its norms (8 minutes)
#   scripts/gpu_check.sh trt        TensorRT and ONNX Runtime's TensorRT, where installed (9 minutes)
#   scripts/gpu_check.sh verdict    one line for each backend
#
# Reports, pages and logs go to $OUT (gpu-check), everything else to $WORK. For a machine without a
# network: `pack` on one that has it, then `wheels` there (docs/gpu.md).
set -u
cd "$(dirname "$0")/.."
for folder in engines exporters benchmarks; do # a copy may have lost the links
  [ -e "wmdeploy/$folder/__init__.py" ] || ln -sfn "../$folder" "wmdeploy/$folder"
done
OUT=$(mkdir -p "${OUT:-gpu-check}" && cd "${OUT:-gpu-check}" && pwd)
WORK=${WORK:-${TMPDIR:-/tmp}/wmdeploy-gpu-check}
mkdir -p "$WORK"
export TORCHINDUCTOR_CACHE_DIR=$WORK/inductor TRITON_CACHE_DIR=$WORK/triton XDG_CACHE_HOME=$WORK/cache
ORT=${ORT:-onnxruntime-gpu==1.31.1}
MODEL=${MODEL:-reference} # or another preset
CLIP=wmdeploy/sample/clip-00000.mkv
if [ -d "$WORK/site" ]; then # made by `wheels`
  export PYTHONPATH=$WORK/site
  PYTHON=python3
else
  PYTHON=${PYTHON:-.venv/bin/python}
fi
wmdeploy() { "$PYTHON" -m wmdeploy.cli "$@"; }

# bench NAME BUNDLE OPTION...: a report of that name
bench() {
  local name=$1 bundle=$2
  shift 2
  timeout 600 "$PYTHON" -m wmdeploy.cli bench "$WORK/$bundle" --clip $CLIP --seconds 2 "$@" \
    --json "$OUT/$name.json" --html "$OUT/$name.html" > "$OUT/$name.txt" 2>&1
  local code=$?
  tail -40 "$OUT/$name.txt"
  echo "bench $name: exit code $code"
}

case ${1:-} in
all)
  for call in setup first fp32 fp16 ort trt verdict; do
    echo "== $call"
    bash "scripts/$(basename "$0")" $call
  done ;;
setup)
  make setup EXTRAS=agents,data,export,gpu,hub,report,rtx,serve,train,dev
  .venv/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt \
    -e '.[tensorrt]' || echo "no TensorRT: its backends will be told as not here" ;;
first)
  nvidia-smi --query-gpu=name,driver_version,memory.total,clocks.max.sm --format=csv,noheader
  wmdeploy doctor > "$OUT/doctor.txt" 2>&1
  cat "$OUT/doctor.txt"
  for precision in fp32 fp16; do
    [ -e "$WORK/$MODEL-$precision" ] ||
      wmdeploy export "$MODEL" --precision $precision -o "$WORK/$MODEL-$precision" --clip $CLIP
  done > "$OUT/export.txt" 2>&1 &
  timeout 400 "$PYTHON" -m pytest -p no:cacheprovider -q -rs --tb=short -m gpu \
    tests/test_gpu.py tests/engines/test_gpu_backends.py -k "not compile" > "$OUT/tests.txt" 2>&1
  tail -40 "$OUT/tests.txt"
  wait
  tail -3 "$OUT/export.txt" ;;
fp32)
  bench $MODEL-fp32 $MODEL-fp32 --backend cudagraph --batch 1,8
  # compiles every graph once; the kernels are kept for the bench
  time timeout 500 "$PYTHON" -m wmdeploy.cli rollout "$WORK/$MODEL-fp32" $CLIP --backend compile \
    --horizon 30 -o "$WORK/compile-fp32.npz"
  bench $MODEL-fp32-compile $MODEL-fp32 --backend compile --backend cudagraph ;;
fp16)
  bench $MODEL-fp16 $MODEL-fp16 --backend eager-fp16 --backend cudagraph \
    --backend compile-fp16 --batch 1,8
  time timeout 500 "$PYTHON" -m wmdeploy.cli rollout "$WORK/$MODEL-fp16" $CLIP --backend compile \
    --horizon 30 -o "$WORK/compile-fp16.npz"
  bench $MODEL-fp16-compile $MODEL-fp16 --backend compile --backend cudagraph ;;
ort)
  for precision in fp32 fp16; do
    bench $MODEL-$precision-ort $MODEL-$precision --backend ort-cuda \
      --backend ort-cuda-nhwc --backend cudagraph
  done ;;
trt)
  for flavour in tensorrt tensorrt-rtx; do
    wmdeploy build-engine "$WORK/$MODEL-fp16" --flavour $flavour > "$OUT/build-$flavour.txt" 2>&1
    tail -5 "$OUT/build-$flavour.txt"
  done
  bench $MODEL-fp16-trt $MODEL-fp16 --backend tensorrt --backend tensorrt-rtx \
    --backend ort-tensorrt --backend cudagraph ;;
verdict)
  "$PYTHON" -m wmdeploy.benchmarks.render.verdicts "$OUT"/*.json | tee "$OUT/verdict.txt" ;;
pack) # on a machine with a network: wheels for Python 3.12 that has torch and onnx already
  mkdir -p .whl .ort
  GET="python3 -m pip download --no-deps --only-binary=:all: --python-version 3.12 \
    --implementation cp --platform manylinux_2_28_x86_64 --platform manylinux_2_17_x86_64"
  $GET -d .whl $(grep -E '^(av|msgspec|nvidia-ml-py)==' constraints.txt)
  python3 -m pip wheel --no-deps -w .whl .
  $GET -d .ort "$ORT"
  for wheel in .ort/*.whl; do split -b 50m -d -a 1 "$wheel" "$wheel.part"; done
  ls -l .whl .ort ;;
wheels) # there, with .whl beside this checkout; .ort's parts too, or one after the other
  if ls .ort/*.part* > /dev/null 2>&1; then
    mkdir -p "$WORK/parts" && cp .ort/*.part* "$WORK/parts"
  fi
  if ls "$WORK"/parts/*.part4 > /dev/null 2>&1; then
    name=$(basename "$(ls "$WORK"/parts/*.part0)" .part0)
    cat "$WORK/parts/$name".part? > "$WORK/$name"
  fi
  mkdir -p "$WORK/site"
  ls .whl/*.whl "$WORK"/*.whl 2> /dev/null | xargs python3 -m pip install -q --no-index --no-deps \
    --no-compile --no-cache-dir --upgrade --target "$WORK/site" ;;
*)
  sed -n '2,15s/^# \{0,1\}//p' "$0"
  exit 2 ;;
esac
