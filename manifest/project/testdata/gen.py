"""Writes the projects beside this file, as training jobs leave them.

Made with Python 3.11, scikit-learn 1.5.2, numpy 1.26.4, pandas 2.2.3,
joblib 1.4.2 and xgboost 3.2.0. Seeds are fixed; the models are of a few trees
on twelve rows.
"""

import json
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
from sklearn.ensemble import RandomForestClassifier
from sklearn.feature_selection import SelectKBest
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import LabelEncoder, StandardScaler
from xgboost import XGBClassifier

HERE = Path(__file__).parent

rng = np.random.default_rng(7)
X = pd.DataFrame(rng.normal(size=(12, 3)), columns=["amount", "hour", "risk"])
y = np.tile([0, 1], 6)

forest = RandomForestClassifier(n_estimators=2, max_depth=2, random_state=0).fit(X, y)
logistic = LogisticRegression().fit(X, y)
scaler = StandardScaler().fit(X)
selector = SelectKBest(k=2).fit(X, y)
features = {"selected_features": list(X), "created_at": "2025-12-12T12:00:21+00:00"}


def summary(model: str) -> dict:
    return {
        "best_model": "random_forest",
        "feature_count": 3,
        "model_artifact": model,
        "best_model_metrics": {"train_f1": 0.118, "val_f1": 0.07, "val_roc_auc": 0.676},
        "test_metrics": {"test_f1": 0.079, "test_roc_auc": 0.673},
    }


def write(project: str, files: dict[str, object]) -> None:
    for name, value in files.items():
        path = HERE / project / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(value, XGBClassifier):
            value.save_model(path)
        elif path.suffix == ".json":
            path.write_text(json.dumps(value, indent=2) + "\n")
        else:
            joblib.dump(value, path, compress=3 if path.suffix == ".gz" else 0)


write("everyday", {
    "models/random_forest_final_model.joblib": forest,
    "data/selected_features.json": features,
    "data/training_summary.json": summary("models/random_forest_final_model.joblib"),
    "data/train.pkl": X,
    "data/labels.pkl": y,
})
write("companions", {
    "models/model.joblib.gz": forest,
    "models/scaler.joblib": scaler,
    "models/label_encoder.joblib": LabelEncoder().fit(["low", "high"]),
    "models/feature_selector.joblib": selector,
    "models/model_features.json": features,
    "models/metrics.json": {"f1": 0.5},
})
write("pipeline", {
    "models/fraud_pipeline.joblib": Pipeline(
        [("select", SelectKBest(k=2)), ("scale", StandardScaler()), ("clf", LogisticRegression())]
    ).fit(X, y),
    "models/scaler.joblib": scaler,
    "data/features.json": list(X),
})
write("two-models", {
    "models/random_forest_model.joblib": forest,
    "models/logistic_model.joblib": logistic,
    "data/training_summary.json": summary("/home/ci/fraud/models/logistic_model.joblib"),
})
write("xgboost", {
    "models/model.ubj": XGBClassifier(n_estimators=2, max_depth=2).fit(X, y),
    "data/metrics.json": {"auc": 0.7},
})
write("dict", {
    "models/bundle.joblib": {"features": list(X), "scaler": scaler, "threshold": 0.4, "model": logistic},
    "models/thresholds.joblib": {"low": 0.1, "high": 0.9},
})
