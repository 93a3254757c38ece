"""Serve the fraud model over HTTP.

    uvicorn main:app --host 0.0.0.0 --port 8000

GET /health says which model this is, POST /predict scores one transaction. The
model is the file $GALLEY_MODEL, or the only one in $GALLEY_MODEL_DIR or models/;
the names of its features are in selected_features.json beside it or in data/.
"""

import hashlib
import json
import os
import platform
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import sklearn
from fastapi import FastAPI, HTTPException
from pydantic import BaseModel

FEATURES = "selected_features.json"


class Transaction(BaseModel):
    """The features of one transaction, in the order that the model knows."""

    features: dict[str, float]


def only(kind: str, paths: Iterable[Path]) -> Path:
    """Return the path that exists; more or fewer than one is an error."""
    found = [path for path in paths if path.is_file()]
    if len(found) != 1:
        raise FileNotFoundError(f"{kind}: want one, found {[str(path) for path in found]}")
    return found[0]


def find_model() -> Path:
    if path := os.environ.get("GALLEY_MODEL"):
        return Path(path)
    return only("model", Path(os.environ.get("GALLEY_MODEL_DIR", "models")).glob("*.joblib"))


def find_features(model: Path) -> Path:
    beside = model.parent / FEATURES
    return beside if beside.is_file() else only(FEATURES, [Path("data") / FEATURES])


def read_names(path: Path) -> list[str]:
    return json.loads(path.read_text(encoding="utf-8"))["selected_features"]


def describe_mismatch(got: list[str], want: list[str]) -> str:
    """Say how the names differ from those the model was trained on; "" if they do not."""
    if missing := [name for name in want if name not in got]:
        return f"missing: {', '.join(missing)}"
    if unknown := [name for name in got if name not in want]:
        return f"unknown: {', '.join(unknown)}"
    for place, (name, expected) in enumerate(zip(got, want, strict=True)):
        if name != expected:
            return f"order: feature {place} is {name}, the model wants {expected}"
    return ""


path = find_model()
names = read_names(find_features(path))
model = joblib.load(path)
if trained_on := describe_mismatch(names, list(getattr(model, "feature_names_in_", names))):
    raise ValueError(f"{FEATURES} and the model do not agree: {trained_on}")
# Their names are checked with every request.
warnings.filterwarnings("ignore", "X does not have valid feature names")
digest = "sha256:" + hashlib.sha256(path.read_bytes()).hexdigest()
app = FastAPI(title="fraud")


@app.get("/health")
def health() -> dict[str, Any]:
    return {
        "model": {"path": str(path), "digest": digest, "class": type(model).__name__},
        "features": len(names),
        "versions": {
            "python": platform.python_version(),
            "scikit-learn": sklearn.__version__,
            "numpy": np.__version__,
            "joblib": joblib.__version__,
        },
    }


@app.post("/predict")
def predict(transaction: Transaction) -> dict[str, float]:
    """Return the probability of fraud; 422 unless names and order are the model's."""
    if mismatch := describe_mismatch(list(transaction.features), names):
        raise HTTPException(status_code=422, detail=mismatch)
    row = np.array([list(transaction.features.values())])
    return {"probability": float(model.predict_proba(row)[0, 1])}
