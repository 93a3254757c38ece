"""Train the example fraud model and write the three files its service needs.

    python train.py --size small --out .

The same arguments and package versions give the same bytes: every seed is fixed,
one thread trains, and the time written is an argument, never the clock.
"""

import argparse
import json
from pathlib import Path
from typing import Any, NamedTuple

import joblib
import numpy as np
import pandas as pd
from sklearn.ensemble import RandomForestClassifier
from sklearn.metrics import (
    average_precision_score,
    f1_score,
    precision_score,
    recall_score,
    roc_auc_score,
)
from sklearn.model_selection import train_test_split

MODEL = "models/random_forest_final_model.joblib"
FEATURES = "data/selected_features.json"
SUMMARY = "data/training_summary.json"

CREATED = "2025-12-12T12:00:21+00:00"
DATA_SEED = 2025
FRAUD_RATE = 0.015


class Size(NamedTuple):
    """How much data the forest sees and how large it may grow."""

    rows: int
    trees: int
    depth: int
    leaf: int


SIZES = {
    "small": Size(rows=20_000, trees=30, depth=8, leaf=8),
    "full": Size(rows=60_000, trees=240, depth=14, leaf=8),
}


class Part(NamedTuple):
    """Features of some transactions and whether each was fraud."""

    x: pd.DataFrame
    y: pd.Series


def transactions(rows: int, seed: int = DATA_SEED) -> Part:
    """Make up card transactions, FRAUD_RATE of them fraud.

    Values are rounded as a feature store would, which also hides the last bit
    that math libraries differ in.
    """
    rng = np.random.default_rng(seed)

    def yes(probability: float) -> np.ndarray:
        return (rng.random(rows) < probability).astype(np.int64)

    def positive(median: float, spread: float, digits: int = 2) -> np.ndarray:
        return rng.lognormal(np.log(median), spread, rows).round(digits)

    amount = positive(38, 1.1)
    usual = positive(45, 0.6)
    hour = rng.normal(14.5, 5.0, rows).round().astype(np.int64) % 24
    weekday = rng.integers(0, 7, rows)
    per_hour = rng.poisson(0.3, rows)
    per_day = per_hour + rng.poisson(2.2, rows)
    online = yes(0.42)
    device_age = rng.exponential(240, rows).round()
    limit = rng.choice([1000, 2500, 5000, 10_000, 20_000], rows, p=[0.15, 0.3, 0.3, 0.2, 0.05])
    x = pd.DataFrame(
        {
            "amount": amount,
            "amount_to_average": (amount / usual).round(3),
            "average_amount_30d": usual,
            "amount_24h": (amount + per_day * usual).round(2),
            "hour_of_day": hour,
            "day_of_week": weekday,
            "is_night": (hour < 6).astype(np.int64),
            "is_weekend": (weekday > 4).astype(np.int64),
            "is_foreign": yes(0.06),
            "is_online": online,
            "is_contactless": (1 - online) * yes(0.7),
            "is_recurring": yes(0.11),
            "is_new_merchant": yes(0.25),
            "is_new_device": (device_age < 7).astype(np.int64),
            "merchant_risk": rng.beta(2, 8, rows).round(4),
            "merchant_age_days": positive(900, 0.7, 0),
            "merchant_chargeback_rate": rng.beta(1, 120, rows).round(5),
            "category_risk": rng.choice([0.05, 0.1, 0.2, 0.35, 0.6], rows),
            "transactions_1h": per_hour,
            "transactions_24h": per_day,
            "transactions_7d": per_day + rng.poisson(13, rows),
            "seconds_since_last": positive(21_600, 1.4, 0),
            "distance_from_home_km": positive(9, 1.5, 1),
            "distance_from_last_km": positive(5, 1.6, 1),
            "account_age_days": positive(1100, 0.6, 0),
            "customer_age": rng.normal(44, 15, rows).round().clip(18, 95),
            "credit_utilization": rng.beta(2, 4, rows).round(4),
            "credit_limit": limit,
            "failed_logins_24h": rng.poisson(0.12, rows),
            "ip_risk": rng.beta(1, 9, rows).round(4),
        }
    )
    risk = (
        1.1 * np.log(x["amount_to_average"].clip(lower=0.01))
        + 1.6 * x["is_foreign"]
        + 1.0 * x["is_night"]
        + 1.4 * x["is_new_device"] * x["is_online"]
        + 4.0 * x["merchant_risk"]
        + 2.0 * x["category_risk"]
        + 5.0 * x["ip_risk"] * x["is_online"]
        + 0.9 * x["transactions_1h"]
        + 1.1 * x["failed_logins_24h"]
        + 0.35 * np.log1p(x["distance_from_last_km"])
        - 0.4 * np.log1p(x["account_age_days"] / 365)
        - 1.5 * x["is_recurring"]
        + rng.logistic(0, 0.6, rows)
    )
    return Part(x, (risk > risk.quantile(1 - FRAUD_RATE)).astype(np.int64).rename("is_fraud"))


def split(data: Part) -> tuple[Part, Part, Part]:
    """Divide data into 60 % to train on, 20 % to validate and 20 % to test."""
    x, x_rest, y, y_rest = train_test_split(
        *data, test_size=0.4, stratify=data.y, random_state=DATA_SEED
    )
    x_val, x_test, y_val, y_test = train_test_split(
        x_rest, y_rest, test_size=0.5, stratify=y_rest, random_state=DATA_SEED
    )
    return Part(x, y), Part(x_val, y_val), Part(x_test, y_test)


def scores(model: Any, part: Part, prefix: str) -> dict[str, float]:
    """Score a fitted classifier on one part of the data, its keys led by prefix."""
    fraud = model.predict_proba(part.x)[:, 1]
    flagged = fraud >= 0.5
    values = {
        "f1": f1_score(part.y, flagged),
        "precision": precision_score(part.y, flagged, zero_division=0),
        "recall": recall_score(part.y, flagged),
        "roc_auc": roc_auc_score(part.y, fraud),
        "pr_auc": average_precision_score(part.y, fraud),
    }
    return {f"{prefix}_{name}": round(float(value), 6) for name, value in values.items()}


def write_json(path: Path, value: Any) -> None:
    """Write value as indented JSON, with the same line ends on every system."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8", newline="\n")


def write_joblib(path: Path, value: Any, compress: int = 0) -> None:
    """Write value by joblib.dump, making the directory first."""
    path.parent.mkdir(parents=True, exist_ok=True)
    joblib.dump(value, path, compress=compress)


def train(
    out: Path, size: Size, seed: int = 42, created: str = CREATED
) -> RandomForestClassifier:
    """Fit the forest, write model, features and summary below out, and return it."""
    training, validation, test = split(transactions(size.rows))
    hyperparameters = {
        "n_estimators": size.trees,
        "max_depth": size.depth,
        "min_samples_leaf": size.leaf,
        "class_weight": "balanced_subsample",
        "random_state": seed,
    }
    model = RandomForestClassifier(**hyperparameters, n_jobs=1)
    model.fit(training.x, training.y)

    features = list(training.x.columns)
    write_joblib(out / MODEL, model)
    write_json(out / FEATURES, {"selected_features": features, "created_at": created})
    write_json(
        out / SUMMARY,
        {
            "best_model": "random_forest",
            "feature_count": len(features),
            "model_artifact": MODEL,
            "best_model_metrics": scores(model, training, "train")
            | scores(model, validation, "val"),
            "test_metrics": scores(model, test, "test"),
            "hyperparameters": hyperparameters,
            "training_timestamp": created,
        },
    )
    return model


def main() -> None:
    parser = argparse.ArgumentParser(description="Train the example fraud model.")
    parser.add_argument("--size", choices=SIZES, default="small", help="small: 300 KB, full: 10 MB")
    parser.add_argument("--out", type=Path, default=Path("."), help="directory to write to")
    parser.add_argument("--seed", type=int, default=42, help="another seed gives another forest")
    parser.add_argument("--created", default=CREATED, help="ISO 8601 time to record")
    args = parser.parse_args()
    train(args.out, SIZES[args.size], args.seed, args.created)


if __name__ == "__main__":
    main()
