#!/usr/bin/env bash
# voyager: 8-bit Float8 storage cuts towards zero, so all vectors shrink, and long embeddings the most.
#
# Expected: Float8 keeps a component as the nearest of 255 steps of 1/127. A vector of length 1 keeps its
#   length but for noise, and the cosine distance of a clip to itself is nearly 0.
# Seen: the digits behind the step are cut off, of negative components upwards, of positive ones downwards.
#   A component of an embedding of d numbers is about 1/√d, 11 steps at d = 128 and 2.8 at 2,048 (PANNs'
#   embeddings), so what is cut is a large part of it: a clip's distance to itself is 0.07 at d = 128,
#   0.18 at 1,024, 0.25 at 2,048, and of the ten nearest neighbours 0.94, 0.83, 0.75 are right where
#   rounding, in NumPy, has 0.95, 0.88, 0.82. A threshold on the distance does not carry over from Float32.
# Control: Float32 storage: distance 0, and the all neighbours right.
# What helps: Float32. Giving a multiple of the vectors does not, as they are normalised before they are cut.
# Versions: voyager 2.2.3, numpy 2.3.5. Python 3.11 to 3.13.
# Source: cpp/src/array_utils.h, normalizeVector and floatToDataType: floats are assigned to int8.
set -euo pipefail
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/python" -m pip install -q --disable-pip-version-check --only-binary :all: voyager==2.2.3 numpy==2.3.5
cd "$work"
cat > check.py <<'PY'
import numpy as np
import voyager


def check(d):
    rng = np.random.default_rng(0)
    kinds = rng.normal(size=(50, d))
    vectors = (kinds[rng.integers(0, 50, 3000)] + 0.7 * rng.normal(size=(3000, d))).astype("float32")
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    ten = np.argsort(-vectors[:200] @ vectors.T, axis=1)[:, :10]

    def share(found):
        return np.mean([len(set(a) & set(b)) / 10 for a, b in zip(found, ten)])

    result = {}
    for storage in ("Float8", "Float32"):
        index = voyager.Index(voyager.Space.Cosine, d, storage_data_type=getattr(voyager.StorageDataType, storage))
        index.add_items(vectors, ids=list(range(3000)))
        found, distances = index.query(vectors[:200], k=10, query_ef=500)
        stored = np.array(index.get_vector(0))
        result[storage] = distances[:, 0].mean(), share(found)
        if storage == "Float8":
            assert np.all(np.abs(stored) <= np.abs(vectors[0]) + 1e-6)
    rounded = np.round(vectors * 127)
    result["rounded"] = 0, share(np.argsort(-rounded[:200] @ rounded.T, axis=1)[:, :10])
    print(f"d = {d}: " + "; ".join(f"{name}: own distance {own:.3f}, right among ten {right:.3f}" for name, (own, right) in result.items()))
    return result


few, many = check(128), check(2048)
check(1024)
assert 0.04 < few["Float8"][0] < 0.1 and 0.2 < many["Float8"][0] < 0.3
assert many["Float8"][1] < many["rounded"][1] - 0.03 and few["Float8"][1] < few["rounded"][1]
assert abs(many["Float32"][0]) < 1e-4 and many["Float32"][1] > 0.99
PY
"$work/venv/bin/python" check.py
echo "As described: what Float8 stores is shorter than what was given."
