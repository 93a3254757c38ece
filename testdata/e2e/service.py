"""Train the example fraud model as train.py does, and keep what it predicts: service.py OUT

OUT/project is the project. OUT/expected.json has the versions of the packages, and
some transactions with the probability that the model gave them before it was written.
"""

import json
import platform
import sys
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import sklearn

FRAUD = Path(__file__).resolve().parent.parent / "fraud"
sys.dont_write_bytecode = True  # the example project is packed as it lies there
sys.path.insert(0, str(FRAUD))
import train  # noqa: E402

TRANSACTIONS = 50
SEED = 7


def main() -> None:
    out = Path(sys.argv[1])
    model: Any = train.train(out / "project", train.SIZES["full"])
    x = train.transactions(TRANSACTIONS, SEED).x
    fraud = model.predict_proba(x)[:, 1]
    expected = {
        "versions": {
            "python": platform.python_version(),
            "scikit-learn": sklearn.__version__,
            "numpy": np.__version__,
            "joblib": joblib.__version__,
        },
        "transactions": [
            {"features": features, "probability": float(probability)}
            for features, probability in zip(x.to_dict("records"), fraud, strict=True)
        ],
    }
    (out / "expected.json").write_text(json.dumps(expected), encoding="utf-8")


if __name__ == "__main__":
    main()
