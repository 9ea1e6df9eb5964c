#!/usr/bin/env bash
# X-ARES: its nearest neighbours are not those of the highest cosine, but loud ones.
#
# Expected: both sides are L2-normalised, as the code and the softmax with temperature
#   0.07 (from DINO's k-NN) have it, so that neighbours are chosen by cosine and the
#   length of an embedding does not matter.
# Seen: KNN turns the training features (clips, d) over to (d, clips) and then normalises
#   along dim=1: each feature over all clips, not each clip. Training embeddings that
#   are long win every query. Two classes 60 degrees apart, one of them 30 times as long:
#   all queries get the long one's label, half of the answers are wrong.
# Control: the same class with features of equal length, and plain cosines in NumPy on
#   the unequal ones: no answer is wrong.
# What helps: normalise embeddings oneself before they are given to X-ARES (its MLP
#   scores change then too), or read its MLP scores only.
# Versions: xares 0.1.3, torch 2.14.1. Python 3.11 to 3.13.
# Source: xares/trainer.py, KNN.__init__ (line 224).
set -euo pipefail
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/python" -m pip install -q --disable-pip-version-check --only-binary :all: \
  torch==2.14.1 numpy==2.3.5 xares==0.1.3 torchaudio==2.11.1
cd "$work"
export PYTHONNOUSERSITE=1 CUDA_VISIBLE_DEVICES=
cat > check.py <<'PY'
import numpy as np
import torch
from xares.trainer import KNN

rng = np.random.default_rng(0)
labels = np.arange(40) % 2
directions = np.where(labels[:, None] == 1, 1.0, [1.0, 1.0, 1.0, -1.0]) + 0.05 * rng.standard_normal((40, 4))


def wrong(length):
    """How many of 20 queries get another label than their own, by X-ARES and by cosines."""
    features = (directions * np.where(labels == 1, length, 1.0)[:, None]).astype("float32")
    train, test = features[:20], features[20:]
    knn = KNN(torch.from_numpy(train), torch.from_numpy(labels[:20]), nb_knn=5, num_classes=2)
    theirs = knn(torch.from_numpy(test)).argmax(dim=1).numpy()
    unit = [rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (train, test)]
    nearest = np.argsort(-unit[1] @ unit[0].T, axis=1)[:, :5]
    cosines = (labels[:20][nearest].mean(axis=1) > 0.5).astype(int)
    return int((theirs != labels[20:]).sum()), int((cosines != labels[20:]).sum())


for length in (1.0, 30.0):
    print(f"one class {length:g} times as long: wrong of 20, X-ARES {wrong(length)[0]}, cosines {wrong(length)[1]}")
assert wrong(1.0) == (0, 0)
assert wrong(30.0) == (10, 0)
PY
"$work/venv/bin/python" -W ignore check.py
echo "As described: the long embeddings were everybody's nearest neighbours."
