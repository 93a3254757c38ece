"""Write small projects as teams lay them out: projects.py OUT [NAME...]

Each becomes a directory below OUT; without names, all do. The bytes depend on the
package versions alone.
"""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn.ensemble import GradientBoostingClassifier, RandomForestClassifier
from sklearn.feature_selection import SelectKBest
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

FRAUD = Path(__file__).resolve().parent.parent / "fraud"
sys.dont_write_bytecode = True  # the example project is packed as it lies there
sys.path.insert(0, str(FRAUD))
import train  # noqa: E402

ROWS = 10_000
SEED = 42


def data() -> tuple[train.Part, train.Part]:
    """Return a part to train on and one to test with."""
    training, _, test = train.split(train.transactions(ROWS))
    return training, test


def forest() -> RandomForestClassifier:
    return RandomForestClassifier(
        n_estimators=10,
        max_depth=6,
        min_samples_leaf=4,
        class_weight="balanced_subsample",
        random_state=SEED,
        n_jobs=1,
    )


def scaled_logistic() -> list[tuple[str, Any]]:
    """The last steps of a pipeline."""
    return [("scale", StandardScaler()), ("classify", LogisticRegression(class_weight="balanced"))]


def describe(
    root: Path,
    model: str,
    features: Any,
    metrics: dict[str, Any],
    directory: str = "data",
) -> None:
    """Write the features file and the summary of a model into directory."""
    train.write_json(root / directory / "selected_features.json", features)
    train.write_json(
        root / directory / "training_summary.json",
        {"model_artifact": model, "training_timestamp": train.CREATED} | metrics,
    )


def nested(root: Path) -> None:
    """Model in models/, nested metrics in data/: the everyday project."""
    train.train(root, train.Size(rows=ROWS, trees=10, depth=6, leaf=4))


def companions(root: Path) -> None:
    """Scaler and encoder in files of their own, all five files in models/."""
    training, test = data()
    categories = ["day_of_week", "category_risk"]
    scaler = StandardScaler().fit(training.x.drop(columns=categories))
    encoder = OneHotEncoder(sparse_output=False).fit(training.x[categories])

    def encode(part: train.Part) -> train.Part:
        columns = [*scaler.get_feature_names_out(), *encoder.get_feature_names_out()]
        scaled = scaler.transform(part.x.drop(columns=categories))
        encoded = encoder.transform(part.x[categories])
        return train.Part(pd.DataFrame(np.hstack([scaled, encoded]), columns=columns), part.y)

    fit = encode(training)
    model = GradientBoostingClassifier(n_estimators=20, random_state=SEED).fit(*fit)
    path = "models/gradient_boosting_model.joblib"
    train.write_joblib(root / path, model)
    train.write_joblib(root / "models/scaler.joblib", scaler)
    train.write_joblib(root / "models/encoder.joblib", encoder)
    metrics = {"metrics": train.scores(model, encode(test), "test")}
    describe(root, path, {"feature_names": list(fit.x.columns)}, metrics, directory="models")


def pipeline(root: Path) -> None:
    """A selector and a scaler in front of the estimator; the features are those selected."""
    training, test = data()
    select = SelectKBest(k=12)
    model = Pipeline([("select", select), *scaled_logistic()]).fit(*training)
    path = "models/fraud_pipeline.joblib"
    train.write_joblib(root / path, model)
    features = {
        "input_features": list(training.x.columns),
        "selected_features": list(select.get_feature_names_out()),
    }
    describe(root, path, features, {"test_metrics": train.scores(model, test, "test")})


def boosted(root: Path) -> tuple[Any, dict[str, Any], list[str]]:
    """Fit an XGBClassifier and return it with its metrics and features."""
    from xgboost import XGBClassifier  # large, and needed by these projects only

    training, test = data()
    model = XGBClassifier(n_estimators=20, max_depth=4, random_state=SEED, n_jobs=1)
    model.fit(*training)
    (root / "models").mkdir(parents=True, exist_ok=True)
    return model, {"test_metrics": train.scores(model, test, "test")}, list(training.x.columns)


def xgboost(root: Path) -> None:
    """An XGBClassifier by joblib.dump."""
    model, metrics, features = boosted(root)
    path = "models/xgboost_model.joblib"
    train.write_joblib(root / path, model)
    describe(root, path, features, metrics)


def xgboost_native(form: str) -> Callable[[Path], None]:
    """Return a project with a model in xgboost's own format: json or ubj."""

    def write(root: Path) -> None:
        model, metrics, features = boosted(root)
        path = f"models/model.{form}"
        model.save_model(root / path)
        describe(root, path, features, metrics)

    return write


def compressed(root: Path) -> None:
    """A model dumped with compress=3, that is zlib."""
    training, test = data()
    model = forest().fit(*training)
    path = "models/random_forest_model.joblib"
    train.write_joblib(root / path, model, compress=3)
    metrics = {"test_metrics": train.scores(model, test, "test")}
    describe(root, path, {"features": list(training.x.columns)}, metrics)


def bundled(root: Path) -> None:
    """Model, features and threshold in one dict."""
    training, test = data()
    model = forest().fit(*training)
    features = list(training.x.columns)
    path = "models/fraud_model.joblib"
    train.write_joblib(root / path, {"model": model, "features": features, "threshold": 0.4})
    metrics = {"threshold": 0.4, "test_metrics": train.scores(model, test, "test")}
    describe(root, path, {"selected_features": features}, metrics)


def two_models(root: Path) -> None:
    """Two models of which the summary names one."""
    training, test = data()
    models = {"random_forest": forest(), "logistic": Pipeline(scaled_logistic())}
    results = []
    for name, model in models.items():
        train.write_joblib(root / f"models/{name}_model.joblib", model.fit(*training))
        results.append({"model": name} | train.scores(model, test, "test"))
    metrics = {"best_model": "random_forest", "models": results}
    features = {"selected_features": list(training.x.columns)}
    describe(root, "models/random_forest_model.joblib", features, metrics)


PROJECTS: dict[str, Callable[[Path], None]] = {
    "nested": nested,
    "companions": companions,
    "pipeline": pipeline,
    "xgboost": xgboost,
    "xgboost-json": xgboost_native("json"),
    "xgboost-ubj": xgboost_native("ubj"),
    "compressed": compressed,
    "dict": bundled,
    "two-models": two_models,
}


def main() -> None:
    parser = argparse.ArgumentParser(description="Write projects to package in tests.")
    parser.add_argument("out", type=Path, metavar="OUT")
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(PROJECTS))
    args = parser.parse_args()
    if unknown := sorted(set(args.names) - set(PROJECTS)):
        parser.error(f"no such project: {', '.join(unknown)}")
    for name in args.names or PROJECTS:
        PROJECTS[name](args.out / name)


if __name__ == "__main__":
    main()
