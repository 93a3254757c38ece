"""Check that a pulled model predicts what the original does: fidelity.py ORIGINAL PULLED

Each directory's own summary names its model and its own features file the columns.
"""

import json
import sys
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd

ROWS = 1000
COLUMNS = ("input_features", "selected_features", "feature_names", "features")


def read_json(root: Path, name: str) -> Any:
    """Read the one file of that name below root."""
    (path,) = root.rglob(name)
    return json.loads(path.read_text(encoding="utf-8"))


def load(path: Path) -> Any:
    """Load a model that joblib or xgboost itself wrote, or one kept in a dict."""
    if path.suffix != ".joblib":
        from xgboost import XGBClassifier  # large, and rarely needed

        model = XGBClassifier()
        model.load_model(path)
        return model
    value = joblib.load(path)
    return value["model"] if isinstance(value, dict) else value


def probabilities(root: Path) -> np.ndarray:
    """Load the model below root and let it score a generated frame."""
    features = read_json(root, "selected_features.json")
    if isinstance(features, dict):
        features = next(features[key] for key in COLUMNS if key in features)
    # Spread over many orders of magnitude, so that trees take many branches.
    values = np.random.default_rng(0).lognormal(0, 3, (ROWS, len(features)))
    model = load(root / read_json(root, "training_summary.json")["model_artifact"])
    return model.predict_proba(pd.DataFrame(values, columns=features))


def main() -> None:
    original, pulled = map(Path, sys.argv[1:])
    want, got = probabilities(original), probabilities(pulled)
    distinct = len(np.unique(want, axis=0))
    if not np.array_equal(want, got):
        sys.exit(f"{pulled}: predictions differ from those of {original}")
    if distinct < 2:
        sys.exit(f"{original}: every row has one probability: nothing was compared")
    print(f"{pulled}: {ROWS} rows predicted identically, {distinct} distinct probabilities")


if __name__ == "__main__":
    main()
