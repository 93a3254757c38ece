"""Write a file of many bytes and one of many opcodes: heavy.py OUT

OUT/models/forest.joblib is a forest of 209 MB, most of it arrays, and
OUT/strings.joblib a dict with a million strings.
"""

import copy
import sys
from pathlib import Path

import joblib
import numpy as np
from sklearn.ensemble import RandomForestClassifier

ROWS = 20_000
TREES = 350


def main() -> None:
    out = Path(sys.argv[1])
    (out / "models").mkdir(parents=True, exist_ok=True)
    rng = np.random.RandomState(0)
    # What cannot be learnt makes large trees.
    forest = RandomForestClassifier(4, random_state=0, n_jobs=1).fit(
        rng.rand(ROWS, 10), rng.randint(0, 2, ROWS)
    )
    few = forest.estimators_
    forest.estimators_ = [copy.deepcopy(few[i % len(few)]) for i in range(TREES)]
    forest.n_estimators = TREES
    joblib.dump(forest, out / "models/forest.joblib")
    joblib.dump({f"key-{i:07d}": i % 200 for i in range(1_000_000)}, out / "strings.joblib")


if __name__ == "__main__":
    main()
