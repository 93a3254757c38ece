"""Write projects whose models have a story, and what Python says of them: stories.py OUT

Each becomes a directory below OUT with models/model.joblib and the JSON files beside
it. OUT/expected.json has, for the projects that are as they should be, the facts
that a reader of the model should find.
"""

import json
import math
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd
import sklearn
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.ensemble import RandomForestClassifier
from sklearn.feature_selection import SelectKBest
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler

NAMES = [
    "amount",
    "hour_of_day",
    "category_risk",
    "age",
    "distance",
    "attempts",
    "device_age",
    "limit",
]
TARGET = "is_fraud"
MODEL = "models/model.joblib"
PLAIN = (type(None), bool, int, float, str)

rng = np.random.RandomState(11)
X = pd.DataFrame(rng.lognormal(size=(400, len(NAMES))), columns=NAMES)
y = (X["amount"] * X["attempts"] > 1.5).astype(int)


class Clip(BaseEstimator, TransformerMixin):
    """A transformer as people write them in their training script."""

    def __init__(self, top: float = 9.0):
        self.top = top

    def fit(self, X: Any, y: Any = None) -> "Clip":
        return self

    def transform(self, X: Any) -> Any:
        return np.minimum(X, self.top)


class Hook:
    """Whatever loads it makes a directory."""

    def __reduce__(self) -> tuple:
        return os.mkdir, ("galley-marker",)


def forest() -> RandomForestClassifier:
    return RandomForestClassifier(n_estimators=12, max_depth=5, random_state=3).fit(X, y)


def save(root: Path, value: Any, features: Any, compress: Any = 0) -> None:
    """Write a project."""
    for name, document in {
        "data/selected_features.json": features,
        "data/training_summary.json": {
            "model_artifact": MODEL,
            "training_timestamp": "2026-01-12T12:00:21+00:00",
            "test_metrics": {"test_roc_auc": 0.93},
        },
    }.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    (root / MODEL).parent.mkdir()
    joblib.dump(value, root / MODEL, compress=compress)


def full_name(value: Any) -> str:
    return f"{type(value).__module__}.{type(value).__qualname__}"


def is_plain(value: Any) -> bool:
    return isinstance(value, PLAIN) and not (isinstance(value, float) and not math.isfinite(value))


def facts(key: str, model: Any) -> dict[str, Any]:
    """Return what Python knows of an estimator."""
    names = getattr(model, "feature_names_in_", None)
    trees = getattr(model, "estimators_", [])
    return {
        "key": key,
        "class": full_name(model),
        "features": int(model.n_features_in_),
        "featureNames": None if names is None else list(map(str, names)),
        "classes": list(map(str, getattr(model, "classes_", []))) or None,
        "params": {k: v for k, v in model.get_params(deep=False).items() if is_plain(v)},
        "trees": len(trees),
        "nodes": sum(tree.tree_.node_count for tree in trees),
        "parts": [facts(step, part) for step, part in getattr(model, "steps", [])],
    }


def selector(root: Path) -> list[dict[str, Any]]:
    """A pipeline, trained with names; its features are those that the selector keeps."""
    select = SelectKBest(k=5)
    steps = [
        ("select", select),
        ("scale", StandardScaler()),
        ("classify", LogisticRegression(C=0.5)),
    ]
    model = Pipeline(steps).fit(X, y)
    save(root, model, {"selected_features": list(select.get_feature_names_out())})
    return [facts("", model)]


def xgboost(root: Path) -> list[dict[str, Any]]:
    from xgboost import XGBClassifier  # large

    model = XGBClassifier(n_estimators=8, max_depth=3, random_state=3, n_jobs=1).fit(X, y)
    save(root, model, NAMES)
    return [facts("", model)]


def bundle(root: Path) -> list[dict[str, Any]]:
    """A dict with the model and what has to be done before it."""
    scaler = StandardScaler().set_output(transform="pandas").fit(X)
    model = RandomForestClassifier(n_estimators=5, random_state=3).fit(scaler.transform(X), y)
    save(root, {"model": model, "scaler": scaler, "threshold": 0.4}, {"features": NAMES})
    return [facts("model", model), facts("scaler", scaler)]


def compressed(root: Path) -> list[dict[str, Any]]:
    model = forest()
    save(root, model, {"feature_names": NAMES}, ("lz4", 3))
    return [facts("", model)]


def surplus(root: Path) -> None:
    """A features file with the target in it."""
    save(root, forest(), [*NAMES, TARGET])


def script(root: Path) -> None:
    """A model with a class of this script."""
    save(root, Pipeline([("clip", Clip()), ("classify", LogisticRegression())]).fit(X, y), NAMES)


def hostile(root: Path) -> None:
    """A good model, and something beside it."""
    save(root, {"model": forest(), "hook": Hook()}, NAMES)


STORIES: list[Callable[[Path], Any]] = [
    selector,
    xgboost,
    bundle,
    compressed,
    surplus,
    script,
    hostile,
]


def main() -> None:
    out = Path(sys.argv[1])
    models = {story.__name__: story(out / story.__name__) for story in STORIES}
    expected = {
        "sklearn": sklearn.__version__,
        "models": {name: found for name, found in models.items() if found},
    }
    (out / "expected.json").write_text(json.dumps(expected, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
