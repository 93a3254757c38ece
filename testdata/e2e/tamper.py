"""Write real models, and the same with an edited tree: tamper.py OUT

MODEL.joblib is as scikit-learn fitted it, MODEL-EDIT.joblib has one number of the
first tree's first node changed. With a file instead of a directory its model is
loaded and used, which ends well for the untouched ones only.
"""

import sys
from pathlib import Path
from typing import Any

import joblib
import numpy as np
from sklearn.ensemble import (
    GradientBoostingRegressor,
    HistGradientBoostingClassifier,
    RandomForestClassifier,
)

FEATURES = 6

rng = np.random.RandomState(5)
X = rng.uniform(size=(500, FEATURES))
y = (X[:, 0] + X[:, 1] * X[:, 2] > 0.8).astype(int)


def forest(edit: str) -> Any:
    model = RandomForestClassifier(n_estimators=4, max_depth=4, random_state=0).fit(X, y)
    tamper(edit, model.estimators_[0].tree_)
    return model


def gradient(edit: str) -> Any:
    model = GradientBoostingRegressor(n_estimators=4, random_state=0).fit(X, X[:, 0] * X[:, 1])
    tamper(edit, model.estimators_[0, 0].tree_)
    return model


def tamper(edit: str, tree: Any) -> None:
    """Change the root; the arrays are views of the nodes."""
    if edit == "child":
        tree.children_right[0] = tree.node_count
    elif edit == "feature":
        tree.feature[0] = FEATURES
    elif edit == "loop":
        tree.children_left[0] = tree.children_right[0] = 0
    elif edit == "far":
        tree.children_left[0] = tree.children_right[0] = 10**10


def histogram(edit: str) -> Any:
    model = HistGradientBoostingClassifier(max_iter=4).fit(X, y)
    nodes = model._predictors[0][0].nodes
    if edit == "child":
        nodes["right"][0] = len(nodes)
    elif edit == "feature":
        nodes["feature_idx"][0] = FEATURES
    elif edit == "loop":
        nodes["left"][0] = nodes["right"][0] = 0
    elif edit == "far":
        nodes["left"][0] = nodes["right"][0] = 2**32 - 1
    return model


def main() -> None:
    path = Path(sys.argv[1])
    if path.is_file():
        print(joblib.load(path).predict(X)[:10])
        return
    path.mkdir(parents=True, exist_ok=True)
    for make in forest, gradient, histogram:
        for edit in "", "child", "feature", "loop", "far":
            name = "-".join(filter(None, [make.__name__, edit]))
            joblib.dump(make(edit), path / f"{name}.joblib")


if __name__ == "__main__":
    main()
