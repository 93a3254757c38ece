"""Writes the fixtures beside this file.

Made with Python 3.11, scikit-learn 1.5.2, numpy 1.26.4, scipy 1.17.1,
pandas 2.2.3, joblib 1.4.2 and xgboost 3.2.0. Seeds are fixed; the files hold
models of a few trees on twelve rows and are good for nothing but reading.
"""

import pickle
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
import scipy.sparse
from sklearn.calibration import CalibratedClassifierCV
from sklearn.ensemble import RandomForestClassifier
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.feature_selection import SelectKBest
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
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
pipeline = Pipeline(
    [("select", SelectKBest(k=2)), ("scale", StandardScaler()), ("clf", LogisticRegression())]
).fit(X, y)
xgb = XGBClassifier(n_estimators=2, max_depth=2).fit(X, y)

dumped = {
    "forest.joblib": forest,
    "logistic.joblib": logistic,
    "pipeline.joblib": pipeline,
    "prepare.joblib": Pipeline([("fill", SimpleImputer()), ("scale", StandardScaler())]).fit(X),
    "words.joblib": Pipeline([("tfidf", TfidfVectorizer()), ("clf", LogisticRegression())]).fit(
        ["a good buy", "a bad buy"] * 3, y[:6]
    ),
    "search.joblib": GridSearchCV(LogisticRegression(), {"C": [0.1, 1.0]}, cv=2).fit(X, y),
    "calibrated.joblib": CalibratedClassifierCV(LogisticRegression(), cv=2).fit(X, y),
    "scaler.joblib": scaler,
    "encoder.joblib": LabelEncoder().fit(["low", "high"]),
    "dict.joblib": {"features": list(X), "scaler": scaler, "threshold": 0.4, "model": logistic},
    "list.joblib": [forest, logistic],
    "tuple.joblib": (scaler, logistic),
    "plain.joblib": {"threshold": 0.4, "features": list(X)},
    "array.joblib": X.to_numpy(),
    "objects.joblib": np.array(["a", None, 3], dtype=object),
    "frame.joblib": X,
    "series.joblib": X["amount"],
    "sparse.joblib": scipy.sparse.csr_matrix(X.to_numpy()),
    "xgb.joblib": xgb,
    "function.joblib": np.mean,
}
for name, value in dumped.items():
    joblib.dump(value, HERE / name)

for method in ["zlib", "gzip", "bz2", "xz", "lzma"]:
    joblib.dump(logistic, HERE / f"logistic.{method}.joblib", compress=(method, 3))

for protocol in range(6):
    (HERE / f"logistic.{protocol}.pkl").write_bytes(pickle.dumps(logistic, protocol))
joblib.dump(forest, HERE / "forest.2.joblib", protocol=2)
X.to_pickle(HERE / "frame.pkl")
(HERE / "array.pkl").write_bytes(pickle.dumps(X.to_numpy()))
scipy.sparse.save_npz(HERE / "sparse.npz", scipy.sparse.csr_matrix(X.to_numpy()))

xgb.save_model(HERE / "xgb.json")
xgb.save_model(HERE / "xgb.ubj")
