"""Write a project whose model has about that many bytes: large.py OUT BYTES

It is a nearest-neighbours classifier, which keeps all that it was trained on; and
what it was trained on does not compress.
"""

import sys
from pathlib import Path

import joblib
import numpy as np
from sklearn.neighbors import KNeighborsClassifier

FEATURES = 64


def main() -> None:
    out, size = Path(sys.argv[1]), int(sys.argv[2])
    rng = np.random.default_rng(0)
    x = rng.random((size // (FEATURES * 8), FEATURES))
    y = (x[:, 0] > 0.5).astype(np.int64)
    (out / "models").mkdir(parents=True, exist_ok=True)
    joblib.dump(KNeighborsClassifier(algorithm="brute").fit(x, y), out / "models/model.joblib")


if __name__ == "__main__":
    main()
