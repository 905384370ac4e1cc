#!/usr/bin/env bash
# All checks and benchmarks for a CUDA GPU, run step by step: benchmarks/gpu.sh [OUT_DIR]
#
# OUT_DIR (default runs/gpu-DATE) gets NUMBER_NAME.log of each step, the table of steps in summary.txt, and the
# steps' output. A step that fails or times out does not stop the others; the exit status is then 1.
#
# PYTHON    the interpreter; .venv/bin/python if it exists, else python3
# DEVICE    cuda, cuda:1, ...; cpu is a dry run without a GPU
# DATA_DIR  the images of cpen455 (datasets/cpen455); without them the steps use other images
# TINY      1: small settings, for minutes on one CPU core, the default on cpu; else 0
# STEPS     only these steps, e.g. STEPS="train_fp32 resume"; reruns may use the same OUT_DIR
# shellcheck disable=SC2329 # the steps are called by their names
set -u

ROOT=$(cd "$(dirname "$0")/.." && pwd) || exit 2

absolute() { # PATH, relative to the caller's folder
    case $1 in
        /*) printf '%s\n' "$1" ;;
        *) printf '%s\n' "$PWD/$1" ;;
    esac
}

set -a # variables and functions from here on are exported, for the bash of each step

if [ -z "${PYTHON:-}" ]; then
    PYTHON=python3
    if [ -x "$ROOT/.venv/bin/python" ]; then PYTHON=$ROOT/.venv/bin/python; fi
fi
case $PYTHON in
    */*) PYTHON=$(absolute "$PYTHON") ;;
esac
DEVICE=${DEVICE:-cuda}
if [ "$DEVICE" = cpu ]; then TINY=${TINY:-1}; else TINY=${TINY:-0}; fi
DATA_DIR=$(absolute "${DATA_DIR:-$ROOT/datasets/cpen455}")
OUT=$(absolute "${1:-$ROOT/runs/gpu-$(date +%Y%m%d-%H%M%S)}")
SKIPPED=77 # exit status of a step that does not apply here
export PYTHONUNBUFFERED=1

# ---- shared by the steps

tiny() { [ "$TINY" = 1 ]; }

on_cpu() { [ "$DEVICE" = cpu ]; }

cuda_only() {
    if on_cpu; then
        echo "skipped: CUDA only"
        exit "$SKIPPED"
    fi
}

# emulated bf16 is slow, and not compiled
needs_bf16() {
    local native="import sys, torch; sys.exit(not torch.cuda.is_bf16_supported(including_emulation=False))"
    if ! on_cpu && ! "$PYTHON" -c "$native"; then
        echo "skipped: this GPU has no native bf16"
        exit "$SKIPPED"
    fi
}

# train NAME FLAG...: train on the digits into runs/NAME; exec, so that a background job is Python itself and
# receives its signals
train() {
    local folder=$OUT/runs/$1
    shift
    rm -rf "$folder"
    if tiny; then
        set -- --nr_filters 8 --nr_logistic_mix 2 --batch_size 128 "$@"
    else
        set -- --batch_size 64 "$@"
    fi
    exec "$PYTHON" pcnn_train.py --config configs/digits.yaml --device "$DEVICE" --sampling_interval 0 --fid_samples 0 \
        --run_dir "$folder" "$@"
}

# train_epoch NAME FLAG...: one epoch, 22 steps (11 where tiny); falling back to uncompiled is a failure
train_epoch() {
    local log=$OUT/runs/$1.txt
    (train "$@" --max_epochs 1) 2>&1 | tee "$log"
    [ "${PIPESTATUS[0]}" -eq 0 ]
    if grep -q "torch.compile failed" "$log"; then exit 1; fi
}

# classify CSV: label the validation images of cpen455, or the few in examples/
classify() {
    if ! tiny && [ -d "$DATA_DIR" ]; then
        "$PYTHON" classify.py --dataset cpen455 --split validation --data_dir "$DATA_DIR" --device "$DEVICE" --out "$1"
    else
        "$PYTHON" classify.py examples --device "$DEVICE" --out "$1"
    fi
}

# ---- the steps; each runs in its own bash with -eu

machine() {
    if command -v nvidia-smi; then nvidia-smi -L || true; fi
    "$PYTHON" - "$DEVICE" << 'END'
import platform
import sys

import torch

device = torch.device(sys.argv[1])
print(f"Python {platform.python_version()}, torch {torch.__version__}, CUDA {torch.version.cuda}")
if device.type == "cuda":
    torch.empty(1, device=device)
    memory = torch.cuda.get_device_properties(device).total_memory / 2**30
    name, capability = torch.cuda.get_device_name(device), torch.cuda.get_device_capability(device)
    bf16 = torch.cuda.is_bf16_supported(including_emulation=False)
    print(f"{name}, {memory:.0f} GiB, compute capability {capability}, native bf16: {bf16}")
    print(f"{torch.cuda.device_count()} GPUs, cuDNN {torch.backends.cudnn.version()}, NCCL {torch.cuda.nccl.version()}")
else:
    print(f"CPU, {torch.get_num_threads()} threads")
END
}

tests() {
    local workers=8
    if on_cpu; then workers=2; fi
    if ! "$PYTHON" -c "import pytest, pytest_timeout, xdist, hypothesis"; then
        echo "skipped: the tests need pytest, pytest-timeout, pytest-xdist and hypothesis"
        exit "$SKIPPED"
    fi
    # without those of W&B and Optuna, which may be missing and do not use a GPU
    OMP_NUM_THREADS=1 "$PYTHON" -m pytest -q -n "$workers" tests -k "cuda or graph" \
        --ignore-glob "*test_sweep*" --ignore-glob "*test_tracking*" --ignore-glob "*tuning*"
}

train_eager() { train_epoch eager --precision fp32 --compile false --cuda_graph false; }

train_fp32() { train_epoch fp32 --precision fp32 --compile true --cuda_graph false; }

train_bf16() {
    needs_bf16
    local compile=true
    if tiny && on_cpu; then compile=false; fi # a CPU takes two minutes to compile it
    train_epoch bf16 --precision bf16 --compile "$compile" --cuda_graph false
}

train_fp16() {
    cuda_only
    train_epoch fp16 --precision fp16 # as older GPUs do by default
}

train_graph() {
    cuda_only
    train_epoch graph --precision fp32 --compile false --cuda_graph true
}

train_compiled_graph() {
    cuda_only
    needs_bf16
    train_epoch compiled_graph --precision bf16 --compile true --cuda_graph true
}

# All see the same images in the same order: bits/dim of the epoch differ only by rounding and dropout noise.
same_losses() {
    "$PYTHON" - "$OUT/runs" << 'END'
import json
import sys
from pathlib import Path

losses = {}
for name in ("eager", "fp32", "bf16", "fp16", "graph", "compiled_graph"):
    file = Path(sys.argv[1], name, "metrics.jsonl")
    if file.exists():
        losses[name] = json.loads(file.read_text().splitlines()[0])["train_bpd"]
        print(f"{name:<16} {losses[name]:.4f} bits/dim")
if len(losses) < 2:
    sys.exit("fewer than two trainings finished")
apart = max(losses.values()) - min(losses.values())
print(f"largest difference {apart:.4f}, limit 0.05")
sys.exit(apart > 0.05)
END
}

resume() {
    local folder=$OUT/runs/fp32
    "$PYTHON" pcnn_train.py --resume "$folder" --max_epochs 2
    [ "$(wc -l < "$folder/metrics.jsonl")" -eq 2 ]
}

# A compiled training is interrupted some time after its first epoch, then resumed to its end.
sigterm() {
    local folder=$OUT/runs/sigterm status=0 pid epochs
    rm -rf "$folder"
    train sigterm --precision fp32 --compile true --max_epochs 100000 &
    pid=$!
    while [ ! -s "$folder/metrics.jsonl" ]; do
        kill -0 "$pid" # fails if training has exited
        sleep 0.2
    done
    sleep 1
    kill -TERM "$pid"
    wait "$pid" || status=$?
    echo "exit status after SIGTERM: $status, expected 143"
    [ "$status" -eq 143 ]
    epochs=$(($(wc -l < "$folder/metrics.jsonl") + 2))
    "$PYTHON" pcnn_train.py --resume "$folder" --max_epochs "$epochs"
    [ "$(wc -l < "$folder/metrics.jsonl")" -eq "$epochs" ]
}

classify_images() { classify "$OUT/classify.csv"; }

# Two concurrent runs on one device give the same labels.
classify_twice() {
    local first status=0
    classify "$OUT/first.csv" &
    first=$!
    classify "$OUT/second.csv" || status=$?
    wait "$first"
    [ "$status" -eq 0 ]
    cut -d , -f 1-3 "$OUT/first.csv" > "$OUT/first_labels.csv"
    cut -d , -f 1-3 "$OUT/second.csv" | cmp - "$OUT/first_labels.csv"
}

generate() {
    "$PYTHON" generate.py --per_class 25 --device "$DEVICE" --out "$OUT/samples" --overwrite true
    [ "$(find "$OUT/samples" -name "*.png" | wc -l)" -eq 100 ]
}

# One process per GPU. A single process creates no process group, hence the next step.
torchrun() {
    local processes=1
    if [ "$DEVICE" = cuda ]; then
        processes=$("$PYTHON" -c "import torch; print(max(1, torch.cuda.device_count()))")
    fi
    echo "processes: $processes"
    rm -rf "$OUT/runs/torchrun"
    set -- --config configs/digits.yaml --device "$DEVICE" --sampling_interval 0 --fid_samples 0 --batch_size 64
    if tiny; then set -- "$@" --nr_filters 8 --nr_logistic_mix 2; fi
    "$PYTHON" -m torch.distributed.run --standalone --nproc_per_node "$processes" \
        pcnn_train.py "$@" --max_epochs 1 --run_dir "$OUT/runs/torchrun"
}

# The data-parallel training step and the other collectives, in a process group of one: NCCL on a GPU, where the step
# is also compiled, Gloo on the CPU.
process_group() {
    "$PYTHON" - "$DEVICE" << 'END'
import sys

import torch
import torch.distributed as dist

import training.step
from model import PixelCNN
from utils.device import pick_device
from training.settings import TrainSettings

device = pick_device(sys.argv[1])
backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
dist.init_process_group(backend, store=dist.HashStore(), rank=0, world_size=1)
training.step.world_size = lambda: 2  # so that the step is a data-parallel one
net = PixelCNN(1, 8, 2, image_channels=1, num_classes=10).to(device)
compiled = device.type == "cuda"
step = training.step.TrainingStep(net, TrainSettings("digits", lr=0.003, compile=compiled), "fp32", 10)
images = torch.randint(0, 256, (16, 1, 8, 8), dtype=torch.uint8, device=device)
losses = [step(images, torch.arange(16, device=device) % 10, seed)[0].item() for seed in range(10)]
print("bits/dim " + " ".join(f"{loss:.3f}" for loss in losses))
assert losses[-1] < losses[0]
assert (step.uncompiled is not None) == compiled, "torch.compile failed"
for where in {torch.device("cpu"), device}:
    total = torch.ones(3, device=where)
    dist.all_reduce(total)
    dist.all_reduce(total, dist.ReduceOp.MAX)
    assert total.tolist() == [1, 1, 1]
values = [None]
dist.all_gather_object(values, "everyone")
dist.broadcast_object_list(values)
dist.barrier()
print(f"{backend}: {values}")
dist.destroy_process_group()
END
}

parity() {
    if tiny; then set -- --images 16 --size 8; fi
    "$PYTHON" -m benchmarks.parity --device "$DEVICE" --data_dir "$DATA_DIR" "$@"
}

speed_sampler() {
    if tiny; then set -- --batches 1 --size 8 --pixels 1 --rounds 1; else set -- --batches 1 16 100; fi
    "$PYTHON" -m benchmarks.sampler --device "$DEVICE" "$@"
}

speed_classifier() {
    if tiny; then set -- --images 1 --rounds 1; fi
    "$PYTHON" -m benchmarks.classifier --device "$DEVICE" "$@"
}

speed_train_step() {
    if tiny; then set -- --net 1 8 2 --size 16 --batch 2 --rounds 1; fi
    "$PYTHON" -m benchmarks.train_step --device "$DEVICE" "$@"
}

profile() {
    if tiny; then set -- --net 1 8 2 --size 16 --batch 2; fi
    "$PYTHON" -m benchmarks.train_step --device "$DEVICE" --profile "$@"
}

set +a

# ---- the run

number=0
failed=0

# step SECONDS NAME: run a step with a time limit; print its row of the table
step() {
    local limit=$1 name=$2 log began status=0 result
    number=$((number + 1))
    case " ${STEPS:-$name} " in
        *" $name "*) ;;
        *) return ;;
    esac
    log=$OUT/$(printf "%02d_%s.log" "$number" "$name")
    began=$(date +%s)
    timeout -k 30 "$limit" bash -euc "$name" > "$log" 2>&1 < /dev/null || status=$?
    case $status in
        0) result=ok ;;
        "$SKIPPED") result=skipped ;;
        124 | 137) result="timed out" ;;
        *) result=FAILED ;;
    esac
    case $result in
        FAILED | "timed out") failed=$((failed + 1)) ;;
    esac
    printf "%02d  %-21s %-10s %5d s\n" "$number" "$name" "$result" $(($(date +%s) - began)) | tee -a "$OUT/summary.txt"
}

run() {
    if [ -e "$OUT/summary.txt" ] && [ -z "${STEPS:-}" ]; then
        printf "error: %s holds the results of another run; give a new folder\n" "$OUT" >&2
        exit 2
    fi
    mkdir -p "$OUT/runs" && cd "$ROOT" || exit 2

    step 120 machine
    step 900 tests
    step 300 train_eager
    step 600 train_fp32
    step 600 train_bf16
    step 600 train_fp16
    step 300 train_graph
    step 600 train_compiled_graph
    step 60 same_losses
    step 600 resume
    step 900 sigterm
    step 600 classify_images
    step 900 classify_twice
    step 300 generate
    step 600 torchrun
    step 600 process_group
    step 1200 parity
    step 1200 speed_sampler
    step 600 speed_classifier
    step 1200 speed_train_step
    step 900 profile

    printf "\nsteps that failed: %d\n" "$failed" | tee -a "$OUT/summary.txt"
    printf "logs and summary.txt: %s\n" "$OUT"
    exit $((failed > 0)) # here: bash has read this whole function, but the file may have changed since
}

run
