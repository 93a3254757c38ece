"""Writes model files to read, and beside them expected.json: what they hold.

    python gen.py OUTDIR            every estimator, protocol and compression; observed.json too
    python gen.py OUTDIR --small    the selection that is committed

models/ was written with the versions of requirements.txt under Python 3.11,
models-1.2/ with Debian 12's own python3 (scikit-learn 1.2.1, joblib 1.2.0,
numpy 1.24.2, pandas 1.5.3). Anything but scikit-learn, joblib and numpy is
optional; scikit-learn 0.20 and later work. Seeds are fixed and no network is
needed. The models are fitted on thirty rows and are good for nothing but
reading.

What expected.json says of a file:

    top            object dict list tuple set array value global
    class          of the object: type's __module__.__qualname__; "" for dict, list, tuple, set;
                   for a global its own name
    sklearn        the _sklearn_version stamp in it, or "" (estimators of other
                   packages carry none)
    n_features     n_features_in_, feature_names_in_ and classes_ (if one-dimensional,
    feature_names  as str), also where they are properties, as in a Pipeline; or null
    classes
    params         get_params(deep=False), where the value is a str, int, finite float, bool or None
    steps          [[name, class]] of a Pipeline, else null
    verdict        pass, or review where a name is __main__'s
    globals        "module:name" that joblib.load asks for, under Python 3 names
    needs          the packages of those that are not Python's own
    compression, protocol
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import datetime
import decimal
import fractions
import importlib
import inspect
import json
import math
import pickle
import random
import sys
import uuid
import warnings
from pathlib import Path

import joblib
import numpy as np
import scipy
import scipy.sparse
import sklearn
from sklearn.base import BaseEstimator, TransformerMixin, is_regressor

from observe import observe


warnings.simplefilter("ignore")


def optional(name: str):
    """The module, or None where it is missing or does not suit the others."""
    try:
        return importlib.import_module(name)
    except Exception:
        return None


for experiment in ["enable_hist_gradient_boosting", "enable_iterative_imputer", "enable_halving_search_cv"]:
    optional("sklearn.experimental." + experiment)

from sklearn.calibration import CalibratedClassifierCV  # noqa: E402
from sklearn.cluster import KMeans  # noqa: E402
from sklearn.compose import ColumnTransformer  # noqa: E402
from sklearn.decomposition import PCA  # noqa: E402
from sklearn.ensemble import (  # noqa: E402
    GradientBoostingClassifier,
    IsolationForest,
    RandomForestClassifier,
    RandomForestRegressor,
    VotingClassifier,
)
from sklearn.feature_extraction.text import TfidfVectorizer  # noqa: E402
from sklearn.feature_selection import RFE, SelectFromModel, SelectKBest, chi2, f_classif  # noqa: E402
from sklearn.gaussian_process import GaussianProcessClassifier, kernels  # noqa: E402
from sklearn.impute import SimpleImputer  # noqa: E402
from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge  # noqa: E402
from sklearn.metrics import f1_score, make_scorer  # noqa: E402
from sklearn.model_selection import GridSearchCV, RandomizedSearchCV, StratifiedKFold  # noqa: E402
from sklearn.neighbors import KNeighborsClassifier  # noqa: E402
from sklearn.pipeline import FeatureUnion, Pipeline  # noqa: E402
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler  # noqa: E402
from sklearn.svm import SVC  # noqa: E402
from sklearn.tree import DecisionTreeClassifier  # noqa: E402

pd = optional("pandas")

rng = np.random.RandomState(7)
X = rng.uniform(0.1, 1.0, size=(30, 4))
y = np.arange(30) % 2
amount = X[:, 0] * 10 + X[:, 1]
both = np.column_stack([y, (np.arange(30) // 2) % 2])
words = ["a good buy", "a bad buy", "good value for money"] * 10
NAMES = ["amount", "hour", "risk", "age"]
frame = pd and pd.DataFrame(X, columns=NAMES)
mixed = pd and frame.assign(country=(["DE", "FR", "NL"] * 10))


class Clip(BaseEstimator, TransformerMixin):
    """A transformer as people write them in their training script."""

    def __init__(self, top=0.9):
        self.top = top

    def fit(self, X, y=None):
        return self

    def transform(self, X):
        return np.minimum(X, self.top)


# Every estimator of a package ------------------------------------------------

REQUIRED = {
    "estimators": [("a", LogisticRegression()), ("b", DecisionTreeClassifier(max_depth=2))],
    "param_grid": {"C": [0.1, 1.0]},
    "param_distributions": {"C": [0.1, 1.0, 10.0]},
    "steps": [("scale", StandardScaler()), ("clf", LogisticRegression())],
    "transformer_list": [("scale", StandardScaler()), ("pca", PCA(2))],
    "transformers": [("scale", StandardScaler(), [0, 1]), ("keep", "passthrough", [2])],
    "dictionary": X[:3],
    "categorical_features": [3],
}
SMALL = {"n_estimators": 3, "perplexity": 5, "cv": 2, "random_state": 0, "n_clusters": 2, "n_neighbors": 3}
SPECIAL = {
    "CCA": dict(n_components=1),
    "PLSCanonical": dict(n_components=1),
    "PLSSVD": dict(n_components=1),
    "GaussianRandomProjection": dict(n_components=2),
    "SparseRandomProjection": dict(n_components=2),
    "HistGradientBoostingClassifier": dict(max_iter=3),
    "HistGradientBoostingRegressor": dict(max_iter=3),
    "RandomizedSearchCV": dict(n_iter=2),
    "DictionaryLearning": dict(max_iter=5),
    "NeighborhoodComponentsAnalysis": dict(max_iter=5),
    "SparsePCA": dict(max_iter=20),
    "MiniBatchSparsePCA": dict(n_components=2),
    "RadiusNeighborsClassifier": dict(radius=5.0),
    "MLPClassifier": dict(hidden_layer_sizes=(4,), max_iter=20),
    "MLPRegressor": dict(hidden_layer_sizes=(4,), max_iter=20),
    "HashingEncoder": dict(max_process=1),
    "HDBSCAN": dict(copy=True),
    "SelectKBest": dict(k=2),
    "QuantileRegressor": dict(solver="highs"),
}
DATA = {
    "CountVectorizer": (words,),
    "TfidfVectorizer": (words,),
    "HashingVectorizer": (words,),
    "FeatureHasher": ([{"a": 1}, {"b": 2}],),
    "DictVectorizer": ([{"a": 1}, {"b": 2}],),
    "LabelEncoder": (["low", "high"],),
    "LabelBinarizer": (["low", "high", "low"],),
    "MultiLabelBinarizer": ([("a", "b"), ("a",)],),
    "PatchExtractor": (X.reshape(2, 5, 12),),
    "KernelCenterer": (X @ X.T,),
    "IsotonicRegression": (X[:, 0], amount),
    "CategoricalNB": ((X * 3).astype(int), y),
    "SelfTrainingClassifier": (X, np.where(np.arange(30) < 20, y, -1)),
    "ClassifierChain": (X, both),
    "MultiOutputClassifier": (X, both),
    "RegressorChain": (X, np.column_stack([amount, -amount])),
    "MultiOutputRegressor": (X, np.column_stack([amount, -amount])),
}
CHOOSY = "SelfTrainingClassifier", "ClassifierChain", "RegressorChain"  # their None is no default
UNFITTED = {
    "SMOTENC": "wants a categorical column, and learns nothing but a table of neighbours",
    "SMOTEN": "wants categorical columns, and learns nothing but a table of neighbours",
}


def classes_of(package: str) -> list:
    """The estimator classes of scikit-learn or a package that lists them as it does."""
    if package == "sklearn":
        homes = "sklearn.utils.discovery", "sklearn.utils", "sklearn.utils.testing"
        home = next(m for m in map(optional, homes) if hasattr(m, "all_estimators"))
        found = [cls for _, cls in home.all_estimators()]
    elif package == "imblearn":
        found = [cls for _, cls in importlib.import_module("imblearn.utils.testing").all_estimators()]
    else:
        module = importlib.import_module(package)
        found = [cls for _, cls in inspect.getmembers(module, inspect.isclass) if hasattr(cls, "fit")]
    return sorted(set(found), key=lambda cls: (cls.__name__, cls.__module__))


def make(cls):
    """An instance of an estimator class, with what it cannot do without."""
    params = {}
    for name, parameter in inspect.signature(cls.__init__).parameters.items():
        if name in REQUIRED and parameter.default is parameter.empty:
            params[name] = REQUIRED[name]
        elif name in ("estimator", "base_estimator") and (
            parameter.default is parameter.empty or cls.__name__ in CHOOSY
        ):
            if name in params or "estimator" in params:
                continue
            inner = Ridge() if "Regressor" in cls.__name__ else LogisticRegression()
            params[name] = inner.fit(X, y) if cls.__name__ == "FrozenEstimator" else inner
        elif name in SMALL and not (name == "n_clusters" and "Feature" in cls.__name__):
            params[name] = SMALL[name]
    if "Stacking" in cls.__name__ or "Voting" in cls.__name__:
        if "Regressor" in cls.__name__:
            params["estimators"] = [("a", LinearRegression()), ("b", Ridge())]
    params.update(SPECIAL.get(cls.__name__, {}))
    return cls(**params)


def fitted(cls):
    """An instance of cls fitted on what suits it."""
    est, name = make(cls), cls.__name__
    if name in UNFITTED:
        return est
    if name in DATA:
        return est.fit(*DATA[name])
    if name.startswith("MultiTask"):
        return est.fit(X, np.column_stack([amount, -amount]))
    if hasattr(est, "fit_resample"):
        est.fit_resample(np.vstack([X, X[1::2]]), np.concatenate([y, y[1::2]]))
        return est
    target = amount if is_regressor(est) or name in ("CCA", "PLSCanonical", "PLSSVD") else y
    return est.fit(X, target)


# Models as people save them --------------------------------------------------


def pipeline(*steps):
    return Pipeline(
        [("step%d" % i if isinstance(s, str) else type(s).__name__.lower(), s) for i, s in enumerate(steps)]
    )


def zoo() -> dict:
    """Arrays of every layout and kind of element."""
    record = np.dtype([("id", "<i4"), ("name", "<U3"), ("score", "<f8", (2,))])
    return {
        "c": np.arange(6.0).reshape(2, 3),
        "fortran": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        "zero_d": np.array(4.5),
        "empty": np.empty((0, 3)),
        "no_columns": np.empty((3, 0), dtype=np.int64),
        "strided": np.arange(12)[::2],
        "structured": np.array([(1, "ab", (0.5, 1.5)), (2, "c", (2.5, 3.5))], dtype=record),
        "structured_objects": np.array([(1, "a"), (2, None)], dtype=[("id", "i8"), ("what", "O")]),
        "aligned": np.zeros(2, dtype=np.dtype([("a", "i1"), ("b", "f8")], align=True)),
        "subarray": np.zeros(2, dtype=[("cell", "<i2", (2, 2))]),
        "titled": np.zeros(1, dtype=[(("title", "a"), "i4")]),
        "datetime": np.array(["2024-01-02", "NaT"], dtype="datetime64[D]"),
        "datetime_ns": np.array(["2024-01-02T03:04:05"], dtype="datetime64[ns]"),
        "timedelta": np.array([1, 2], dtype="timedelta64[s]"),
        "timedelta_25": np.array([1, 2], dtype="timedelta64[25us]"),
        "big": np.arange(3, dtype=">i4"),
        "big_float": np.arange(3, dtype=">f8"),
        "matrix": np.matrix([[1, 2], [3, 4]]),
        "masked": np.ma.masked_array([1.0, 2.0], mask=[False, True]),
        "record": np.rec.array([(1, 2.0)], names="a,b"),
        "unicode": np.array(["low", "high", "größer"]),
        "bytes": np.array([b"low", b"high"]),
        "bool": np.array([True, False]),
        "complex": np.array([1 + 2j, 3j]),
        "half": np.array([0.5, 2.0], dtype=np.float16),
        "long": np.zeros(1, dtype=np.longdouble),  # anything else has stray bytes in it
        "small": np.array([1, 200], dtype=np.uint8),
        "void": np.zeros(2, dtype="V3"),
        "object": np.array(["a", None, 3, 2.5, (1, "b"), np.arange(2)], dtype=object),
        "object_2d": np.array([["a", "b"], ["c", None]], dtype=object),
        "object_fortran": np.asfortranarray(np.array([["a", 1], ["b", 2]], dtype=object)),
    }


def sparse() -> dict:
    kinds = ["csr", "csc", "coo", "bsr", "dia", "lil", "dok"]
    made = {kind: getattr(scipy.sparse, kind + "_matrix")(np.eye(3)) for kind in kinds}
    for kind in kinds:
        if hasattr(scipy.sparse, kind + "_array"):
            made[kind + "_array"] = getattr(scipy.sparse, kind + "_array")(np.eye(3))
    return made


def scalars() -> list:
    names = ["bool_", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"]
    names += ["float16", "float32", "float64", "complex64", "complex128", "str_", "bytes_"]
    return [getattr(np, name)(1) for name in names] + [
        np.zeros(1, dtype=np.longdouble)[0],
        np.datetime64("2024-01-02"), np.timedelta64(3, "s"), np.float64("nan"),
        np.zeros(1, dtype=[("a", "i4"), ("b", "f8")])[0],
    ]  # fmt: skip


def plain() -> dict:
    """What the standard library offers that a model's notes may hold."""
    return {
        "ordered": collections.OrderedDict(a=1),
        "default": collections.defaultdict(list, a=[1]),
        "counter": collections.Counter("abca"),
        "deque": collections.deque([1, 2], maxlen=3),
        "when": datetime.datetime(2024, 1, 2, 3, 4, 5, tzinfo=datetime.timezone.utc),
        "naive": datetime.datetime(2024, 1, 2),
        "date": datetime.date(2024, 1, 2),
        "time": datetime.time(3, 4),
        "took": datetime.timedelta(seconds=5),
        "zone": datetime.timezone(datetime.timedelta(hours=1), "CET"),
        "decimal": decimal.Decimal("1.5"),
        "fraction": fractions.Fraction(1, 3),
        "uuid": uuid.UUID(int=7),
        "set": {1, 2},
        "frozen": frozenset(["a"]),
        "slice": slice(1, 5, 2),
        "range": range(3),
        "complex": 1 + 2j,
        "bytes": b"\x00\xff",
        "buffer": bytearray(b"\x00\xff"),
        "big": 2**100,
        "negative": -(2**70),
        "types": [
            int,
            float,
            str,
            bool,
            bytes,
            list,
            tuple,
            dict,
            set,
            frozenset,
            object,
            complex,
            slice,
            range,
        ],
        "singles": [None, True, False, Ellipsis, NotImplemented],
        "nested": [[], (), {}, [(1,), (1, 2), (1, 2, 3), (1, 2, 3, 4)]],
        "float": [0.1, float("inf"), -0.0, float("nan")],
        "text": ["", "größer", "\u20ac", "x" * 300, "a\nb\\c"],
    }


def pandas_things() -> dict:
    index = pd.Index(["a", "b", "c"], name="key")
    nullable = {} if not hasattr(pd, "BooleanDtype") else {
        "nb": pd.array([True, None, False], dtype="boolean"), "st": pd.array(["a", "b", None], dtype="string"),
    }  # fmt: skip
    if hasattr(pd, "Float64Dtype"):
        nullable["nf"] = pd.array([1.5, None, 3.0], dtype="Float64")
    return {
        "frame": mixed.head(3),
        "series": frame["amount"].head(3),
        "typed": pd.DataFrame({
            "i": [1, 2, 3], "f": [0.5, None, 2.5], "s": ["a", "b", None], "b": [True, False, True],
            "c": pd.Categorical(["x", "y", "x"]), "o": pd.Categorical([1, 2, 1], ordered=True),
            "d": pd.to_datetime(["2024-01-01", "2024-01-02", None]),
            "z": pd.to_datetime(["2024-01-01", "2024-01-02", "2024-01-03"]).tz_localize("UTC"),
            "t": pd.to_timedelta([1, 2, 3], unit="s"),
            "n": pd.array([1, None, 3], dtype="Int64"), **nullable,
            "p": pd.period_range("2024-01", periods=3, freq="M"), "iv": pd.interval_range(0, 3),
        }, index=index),
        "indexes": [
            index, pd.RangeIndex(3), pd.Index([1, 2]), pd.Index([0.5]), pd.date_range("2024-01-01", periods=2),
            pd.to_timedelta([1, 2], unit="s"), pd.MultiIndex.from_tuples([("a", 1), ("b", 2)], names=["x", "y"]),
            pd.CategoricalIndex(["a", "b"]), pd.interval_range(0, 2), pd.period_range("2024-01", periods=2, freq="M"),
        ],
        "values": [
            pd.Timestamp("2024-01-01"), pd.Timestamp("2024-01-01", tz="UTC"), pd.Timedelta(seconds=1), pd.NaT,
            pd.Interval(0, 1), pd.Period("2024-01", "M"), pd.CategoricalDtype(["a", "b"]),
        ] + ([pd.NA] if hasattr(pd, "NA") else []),
        "sparse": pd.DataFrame({"s": pd.arrays.SparseArray([0, 0, 1])}),
    }  # fmt: skip


def models() -> dict:
    """Name -> model, of the kinds that are met in the wild. The committed ones among them."""
    forest = RandomForestClassifier(n_estimators=3, max_depth=3, random_state=0).fit(X, y)
    logistic = LogisticRegression().fit(X, y)
    scaler = StandardScaler().fit(X)
    made = {
        "forest": forest,
        "logistic": logistic,
        "scaler": scaler,
        "regressor": RandomForestRegressor(n_estimators=2, max_depth=2, random_state=0).fit(X, amount),
        "boosting": GradientBoostingClassifier(n_estimators=3, max_depth=2, random_state=0).fit(X, y),
        "isolation": IsolationForest(n_estimators=3, max_samples=16, random_state=0).fit(X),
        "knn": KNeighborsClassifier(3, algorithm="kd_tree").fit(X, y),
        "knn_ball": KNeighborsClassifier(3, algorithm="ball_tree", metric="haversine").fit(X[:, :2], y),
        "svc": SVC(probability=True, random_state=0).fit(X, y),
        "gaussian": GaussianProcessClassifier(kernels.RBF() + kernels.WhiteKernel(), random_state=0).fit(
            X, y
        ),
        "kmeans": KMeans(2, n_init=1, random_state=0).fit(X),
        "pipeline_array": pipeline(SelectKBest(f_classif, k=2), StandardScaler(), LogisticRegression()).fit(
            X, y
        ),
        "unfitted": pipeline(StandardScaler(), SVC()),
        "union": FeatureUnion([("pca", PCA(2)), ("best", SelectKBest(chi2, k=2))]).fit(X, y),
        "search": GridSearchCV(
            pipeline(StandardScaler(), LogisticRegression()),
            {"logisticregression__C": [0.1, 1.0]},
            cv=StratifiedKFold(2),
            scoring=make_scorer(f1_score),
        ).fit(X, y),
        "search_random": RandomizedSearchCV(
            DecisionTreeClassifier(),
            {"max_depth": [1, 2, 3]},
            n_iter=2,
            cv=2,
            random_state=0,
            scoring="roc_auc",
        ).fit(X, y),
        "calibrated": CalibratedClassifierCV(LogisticRegression(), cv=2).fit(X, y),
        "isotonic": CalibratedClassifierCV(LogisticRegression(), cv=2, method="isotonic").fit(X, y),
        "voting": VotingClassifier(
            [("a", LogisticRegression()), ("b", DecisionTreeClassifier(max_depth=2))]
        ).fit(X, y),
        "dict": {"model": forest, "features": NAMES, "threshold": 0.4, "scaler": scaler},
        "list": [logistic, scaler],
        "tuple": (scaler, logistic),
        "rfe": RFE(LogisticRegression(), n_features_to_select=2).fit(X, y),
        "from_model": SelectFromModel(DecisionTreeClassifier(max_depth=2, random_state=0)).fit(X, y),
        "text": pipeline(TfidfVectorizer(), LogisticRegression()).fit(words, y),
        "words": DecisionTreeClassifier(max_depth=2).fit(X, np.where(y, "fraud", "fine")),
        "random_state": RandomForestClassifier(1, max_depth=1, random_state=np.random.RandomState(0)).fit(
            X, y
        ),
        "log1p": pipeline(FunctionTransformer(np.log1p), LogisticRegression()).fit(X, y),
        "custom": pipeline(Clip(), LogisticRegression()).fit(X, y),
        "zoo": zoo(),
        "sparse": sparse(),
        "scalars": scalars(),
        "plain": plain(),
        "object_array": zoo()["object"],
        "array": zoo()["c"],
        "function": np.mean,
        "set": {1, 2},
    }
    hist = optional("sklearn.ensemble")
    if hasattr(hist, "HistGradientBoostingClassifier"):
        made["hist"] = hist.HistGradientBoostingClassifier(max_iter=2, max_leaf_nodes=4).fit(X, y)
    if hasattr(hist, "StackingClassifier"):
        made["stacking"] = hist.StackingClassifier(REQUIRED["estimators"], cv=2).fit(X, y)
    if hasattr(np.random, "default_rng"):
        kinds = [np.random.MT19937, np.random.PCG64, np.random.Philox, np.random.SFC64]
        made["generators"] = [np.random.Generator(kind(0)) for kind in kinds] + [np.random.RandomState(0)]
    if pd:
        select = pipeline(SelectKBest(f_classif, k=2), StandardScaler(), LogisticRegression())
        made["pipeline"] = select.fit(frame, np.where(y, "fraud", "fine"))
        made["forest_frame"] = RandomForestClassifier(2, max_depth=2, random_state=0).fit(frame, y)
        columns = ColumnTransformer(
            [
                ("numbers", pipeline(SimpleImputer(), StandardScaler()), ["amount", "hour"]),
                ("names", OneHotEncoder(handle_unknown="ignore"), ["country"]),
            ],
            remainder="passthrough",
        )
        made["columns"] = pipeline(columns, RandomForestClassifier(2, max_depth=2, random_state=0)).fit(
            mixed, y
        )
        made.update(("pandas_" + name, value) for name, value in pandas_things().items())
        made["frame"] = made["pandas_frame"]
    made.update(third_party())
    return settled(made)


def settled(made: dict) -> dict:
    """The models without what differs from one run to the next: times and addresses."""
    for search in made["search"], made["search_random"]:
        search.refit_time_ = 0.25
        for key, value in search.cv_results_.items():
            if key.endswith("_time"):
                value[:] = 0.25
    made["text"].steps[0][1]._stop_words_id = 1
    return made


def variants() -> dict:
    """The losses, metrics, kernels, splitters, scorers and functions an estimator may keep."""
    import sklearn.gaussian_process.kernels as k
    from sklearn import ensemble, linear_model, metrics, model_selection, neighbors, neural_network, tree
    from sklearn.compose import TransformedTargetRegressor

    three = np.arange(30) % 3
    made = {}

    def fit(name, cls, target, **params):
        # Some of these a release does not know yet or any more; gen.py's count is not made of them.
        with contextlib.suppress(Exception):
            if "n_estimators" in inspect.signature(cls.__init__).parameters:
                params.setdefault("n_estimators", 2)
            made[name] = cls(**params).fit(X, target)

    for loss in "hinge log log_loss modified_huber squared_hinge perceptron squared_loss squared_error huber \
            epsilon_insensitive squared_epsilon_insensitive".split():
        fit("sgd_" + loss, linear_model.SGDClassifier, y, loss=loss)
        fit("sgdr_" + loss, linear_model.SGDRegressor, amount, loss=loss)
    losses = "ls lad squared_error absolute_error huber quantile least_squares least_absolute_deviation poisson gamma"
    for loss in losses.split():
        fit("gbr_" + loss, ensemble.GradientBoostingRegressor, amount, loss=loss)
        extra = dict(quantile=0.5) if loss == "quantile" else {}
        if hasattr(ensemble, "HistGradientBoostingRegressor"):
            fit(
                "hgbr_" + loss, ensemble.HistGradientBoostingRegressor, amount, loss=loss, max_iter=2, **extra
            )
    for loss in "deviance log_loss exponential".split():
        fit("gbc_" + loss, ensemble.GradientBoostingClassifier, y, loss=loss)
        fit("gbc3_" + loss, ensemble.GradientBoostingClassifier, three, loss=loss)
    if hasattr(ensemble, "HistGradientBoostingClassifier"):
        fit("hgbc_three", ensemble.HistGradientBoostingClassifier, three, max_iter=2)
        fit("hgbc_words", ensemble.HistGradientBoostingClassifier, np.where(y, "fraud", "fine"), max_iter=2)
        fit(
            "hgbc_categories",
            ensemble.HistGradientBoostingClassifier,
            y,
            max_iter=2,
            categorical_features=[0],
        )
    for power in 0, 1, 1.5, 2, 3:
        if hasattr(linear_model, "TweedieRegressor"):
            fit("tweedie_%s" % power, linear_model.TweedieRegressor, amount, power=power)
    for algorithm in "kd_tree", "ball_tree", "brute":
        for metric in sorted(
            neighbors.VALID_METRICS[algorithm] if hasattr(neighbors, "VALID_METRICS") else []
        ):
            name = "knn_%s_%s" % (algorithm, metric)
            fit(name, KNeighborsClassifier, y, n_neighbors=2, algorithm=algorithm, metric=metric)
    for metric in "minkowski seuclidean mahalanobis chebyshev canberra braycurtis hamming".split():
        params = {"seuclidean": {"V": X.var(axis=0)}, "mahalanobis": {"VI": np.eye(4)}, "minkowski": {"p": 3}}
        fit(
            "ball_" + metric,
            KNeighborsClassifier,
            y,
            algorithm="ball_tree",
            metric=metric,
            metric_params=params.get(metric),
        )
    made["knn_float32"] = neighbors.NearestNeighbors(n_neighbors=2, algorithm="kd_tree").fit(
        X.astype(np.float32)
    )
    for solver in "sgd", "adam", "lbfgs":
        fit(
            "mlp_" + solver,
            neural_network.MLPClassifier,
            y,
            solver=solver,
            hidden_layer_sizes=(3,),
            max_iter=5,
        )
    fit("tree_outputs", tree.DecisionTreeClassifier, both, max_depth=2)
    fit("forest_weights", RandomForestClassifier, y, class_weight={0: 1, 1: 2.5}, max_depth=2, oob_score=True)
    fit("target", TransformedTargetRegressor, amount, func=np.log1p, inverse_func=np.expm1)
    made["kernels"] = [
        k.RBF() * k.ConstantKernel(2.0), k.Matern() + k.WhiteKernel(), k.RationalQuadratic() ** 2, k.DotProduct(),
        k.ExpSineSquared(), k.PairwiseKernel(), k.CompoundKernel([k.RBF()]),
    ]  # fmt: skip
    splitters = [
        cls
        for name, cls in inspect.getmembers(model_selection, inspect.isclass)
        if hasattr(cls, "get_n_splits")
    ]
    for cls in splitters:
        with contextlib.suppress(TypeError):  # the abstract ones, and those that want a number
            made["cv_" + cls.__name__] = GridSearchCV(LogisticRegression(), {"C": [1.0]}, cv=cls())
    scorers = (
        metrics.get_scorer_names()
        if hasattr(metrics, "get_scorer_names")
        else getattr(metrics, "SCORERS", [])
    )
    made["scorers"] = [metrics.get_scorer(name) for name in sorted(scorers)]
    made["scorer_metrics"] = GridSearchCV(
        LogisticRegression(), {"C": [0.1, 1.0]}, cv=2, scoring=["f1", "roc_auc"], refit="f1"
    ).fit(X, y)
    made["ufuncs"] = [value for _, value in sorted(vars(np).items()) if isinstance(value, np.ufunc)]
    made["functions"] = [np.nan_to_num, np.clip, np.mean, np.median, np.round, np.where, np.sum, np.std]
    made["types"] = [kind for kinds in (
        [np.float16, np.float32, np.float64, np.longdouble, np.int8, np.int16, np.int32, np.int64, np.uint8],
        [np.uint16, np.uint32, np.uint64, np.bool_, np.str_, np.bytes_, np.object_, np.complex64, np.complex128],
        [np.number, np.integer, np.floating, np.generic, np.datetime64, np.timedelta64, np.void],
    ) for kind in kinds]  # fmt: skip
    made["dtypes"] = [np.dtype(kind) for kind in ("f8", ">i2", "O", "U3", "S2", "M8[s]", "?", "V4")]
    if hasattr(StandardScaler, "set_output"):
        made["output"] = StandardScaler().set_output(transform="pandas")
    if hasattr(sklearn, "set_config") and hasattr(LogisticRegression, "set_fit_request"):
        with sklearn.config_context(enable_metadata_routing=True):
            made["routing"] = LogisticRegression().set_fit_request(sample_weight=True)
    stats = optional("scipy.stats")
    made["search_scipy"] = RandomizedSearchCV(
        LogisticRegression(), {"C": stats.loguniform(0.01, 10), "max_iter": stats.randint(100, 300)}, n_iter=2, cv=2
    )
    return made


def third_party() -> dict:
    made, names = {}, frame if pd else X
    xgboost, lightgbm, catboost = optional("xgboost"), optional("lightgbm"), optional("catboost")
    encoders = optional("category_encoders")
    if xgboost:
        made["xgboost"] = xgboost.XGBClassifier(n_estimators=2, max_depth=2, random_state=0).fit(names, y)
        made["xgboost_regressor"] = xgboost.XGBRegressor(n_estimators=2, max_depth=2).fit(X, amount)
        made["booster"] = made["xgboost"].get_booster()
    if lightgbm:
        small = dict(n_estimators=2, num_leaves=3, min_child_samples=2, n_jobs=1, verbose=-1, random_state=0)
        made["lightgbm"] = lightgbm.LGBMClassifier(**small).fit(names, y)
        made["lightgbm_regressor"] = lightgbm.LGBMRegressor(**small).fit(X, amount)
        made["lightgbm_booster"] = made["lightgbm"].booster_
    if catboost:
        small = dict(
            iterations=2, depth=2, verbose=False, allow_writing_files=False, random_seed=0, thread_count=1
        )
        made["catboost"] = catboost.CatBoostClassifier(**small).fit(names, y)
        made["catboost_regressor"] = catboost.CatBoostRegressor(**small).fit(X, amount)
        for name in "catboost", "catboost_regressor":
            for key in "model_guid", "train_finish_time":
                made[name].get_metadata()[key] = "fixed"
    if optional("imblearn"):
        imblearn = importlib.import_module("imblearn.pipeline")
        smote = importlib.import_module("imblearn.over_sampling").SMOTE(random_state=0, k_neighbors=2)
        balanced = importlib.import_module("imblearn.ensemble").BalancedRandomForestClassifier
        steps = [("smote", smote), ("scale", StandardScaler()), ("clf", LogisticRegression())]
        made["imblearn"] = imblearn.Pipeline(steps).fit(names, y)
        made["imblearn_forest"] = balanced(n_estimators=2, max_depth=2, random_state=0).fit(X, y)
    if encoders:
        encode = pipeline(encoders.OrdinalEncoder(cols=["country"]), LogisticRegression())
        made["encoders"] = encode.fit(mixed, y)
        made["encoders_target"] = encoders.TargetEncoder(cols=["country"]).fit(mixed, y)
    return made


# Writing ---------------------------------------------------------------------

PLAIN = (type(None), bool, int, float, str)


def full_name(obj) -> str:
    return "%s.%s" % (obj.__module__, obj.__qualname__)


def attribute(obj, name: str):
    try:
        return getattr(obj, name)
    except Exception:
        return None


def expect(obj) -> dict:
    """What a reader should find in obj; see the top of this file."""
    kind = type(obj)
    top, name = "object", full_name(kind)
    if kind in (dict, list, tuple, set, frozenset):
        top, name = "set" if kind is frozenset else kind.__name__, ""
    elif kind in (np.ndarray, np.matrix):
        top = "array"
    elif kind in PLAIN or isinstance(obj, np.generic):
        top = "value"
    elif inspect.isroutine(obj) or inspect.isclass(obj):
        top, name = "global", full_name(obj)
    estimator = top == "object" and hasattr(obj, "get_params")
    params = obj.get_params(deep=False) if estimator else {}
    n, names, classes = (attribute(obj, a) for a in ("n_features_in_", "feature_names_in_", "classes_"))
    steps = attribute(obj, "steps") if hasattr(obj, "named_steps") else None
    return {
        "top": top,
        "class": name,
        "n_features": int(n) if estimator and n is not None else None,
        "feature_names": [str(x) for x in names] if estimator and names is not None else None,
        "classes": [str(x) for x in classes] if estimator and getattr(classes, "ndim", 0) == 1 else None,
        "params": {
            k: v
            for k, v in params.items()
            if type(v) in PLAIN and not (type(v) is float and not math.isfinite(v))
        },
        "steps": steps and [[k, full_name(type(v)) if not isinstance(v, str) else v] for k, v in steps],
    }


class Writer:
    def __init__(self, out: Path):
        self.out, self.expected, self.observed = out, {}, {}
        out.mkdir(parents=True, exist_ok=True)

    def write(self, name: str, obj, suffix=".joblib", protocol=pickle.DEFAULT_PROTOCOL, compress=None):
        file = self.out / (name + suffix)
        if suffix == ".pkl":
            file.write_bytes(pickle.dumps(obj, protocol))
        else:
            joblib.dump(obj, str(file), compress=compress or 0, protocol=protocol)
        seen = observe(file)
        for key, uses in seen["uses"].items():
            kept = self.observed.setdefault(key, {"uses": "", "args": [], "states": [], "files": 0})
            kept["uses"] = "".join(u for u in "NCVDL" if u in kept["uses"] + uses["uses"])
            kept["args"] = sorted(set(kept["args"] + uses["args"]))
            kept["states"] = sorted(set(kept["states"] + uses["states"]))
            kept["files"] += 1
        own = getattr(
            sys, "stdlib_module_names", {"builtins", "copyreg", "collections", "_codecs", "datetime"}
        )
        packages = {key.partition(":")[0].partition(".")[0] for key in seen["globals"]}
        self.expected[file.name] = {
            **expect(obj),
            "sklearn": ", ".join(seen["stamps"]),
            "verdict": "review"
            if any(k.startswith("__main__:") for k in seen["globals"])
            else "pass",
            "globals": seen["globals"],
            "compression": compress[0] if compress else "none",
            "protocol": protocol,
            "needs": sorted(packages - set(own) - {"__main__"}),
        }

    def close(self, observed: dict | None = None):
        lines = [
            "%s: %s" % (json.dumps(k), json.dumps(v, allow_nan=False))
            for k, v in sorted(self.expected.items())
        ]
        (self.out / "expected.json").write_text("{\n" + ",\n".join(lines) + "\n}\n")
        if observed is not None:
            observed["globals"] = self.observed
            (self.out / "observed.json").write_text(json.dumps(observed, indent=1, sort_keys=True) + "\n")


def compressions() -> list:
    return ["zlib", "gzip", "bz2", "lzma", "xz"] + (["lz4"] if optional("lz4.frame") else [])


COMMITTED = """array boosting columns custom dict encoders forest frame function hist imblearn isolation
    knn lightgbm list object_array plain random_state regressor scalars search sparse svc text tuple union
    unfitted words xgboost zoo catboost calibrated pandas_typed generators log1p""".split()
OLD = "boosting columns custom dict forest frame hist knn object_array pipeline random_state search svc zoo".split()


def small(writer: Writer, made: dict):
    if sklearn.__version__.startswith("1.2."):  # Debian's: what it writes otherwise than the current set
        for name in OLD:
            writer.write(name, made[name])
        writer.write("pipeline.p2", made["pipeline"], protocol=2)
        writer.write("pipeline.zlib-3", made["pipeline"], compress=("zlib", 3))
        return
    for name in COMMITTED:
        writer.write(name, made[name])
    for protocol in range(6):
        writer.write("pipeline.p%d" % protocol, made["pipeline"], protocol=protocol)
        writer.write("pipeline.p%d" % protocol, made["pipeline"], ".pkl", protocol)
    for method in compressions():
        writer.write("pipeline.%s-3" % method, made["pipeline"], compress=(method, 3))


def full(writer: Writer, made: dict):
    for name, obj in {**made, **variants()}.items():
        writer.write(name, obj)
        writer.write(name + ".p2", obj, protocol=2)
        writer.write(name + ".p4", obj, ".pkl", 4)
    for name, array in zoo().items():
        for protocol in 2, 4:
            writer.write("zoo_%s.p%d" % (name, protocol), array, protocol=protocol)
            writer.write("zoo_%s.p%d" % (name, protocol), array, ".pkl", protocol)
    several = "forest pipeline hist boosting columns search knn dict zoo sparse plain scalars generators random_state frame"
    for name in several.split():
        if name in made:
            for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
                writer.write("%s.p%d" % (name, protocol), made[name], protocol=protocol)
                writer.write("%s.p%d" % (name, protocol), made[name], ".pkl", protocol)
    for name in "forest", "dict", "zoo":
        for method in compressions():
            for level in 1, 3, 9:
                writer.write("%s.%s-%d" % (name, method, level), made[name], compress=(method, level))

    # At least so many are to be fitted, lest a change of all_estimators() empties the test.
    for package, least in [("sklearn", 150), ("imblearn", 25), ("category_encoders", 12)]:
        if package != "sklearn" and not optional(package):
            continue
        count, failed = 0, []
        for cls in classes_of(package):
            try:
                with contextlib.redirect_stdout(None):
                    est = fitted(cls)
            except Exception as err:
                failed.append("%s: %s" % (full_name(cls), str(err).strip().split("\n")[0]))
                continue
            count += 1
            name = "%s_%s" % (package, cls.__name__)
            writer.write(name, est)
            writer.write(name + ".p2", est, protocol=2)
        print("%s: %d classes fitted, not fitted: %s" % (package, count, failed or "none"), file=sys.stderr)
        assert count >= least, "%s: %d classes is too few" % (package, count)


def versions() -> dict:
    found = {"python": "%d.%d.%d" % sys.version_info[:3]}
    for (
        name
    ) in "sklearn joblib numpy scipy pandas xgboost lightgbm catboost imblearn category_encoders".split():
        if optional(name):
            found[name] = optional(name).__version__
    return found


def offered() -> dict:
    """Names to allow though no file held them: "module:name" -> uses."""
    names = {}
    for package in "sklearn", "imblearn", "category_encoders", "xgboost", "lightgbm", "catboost":
        if optional(package):
            found = [cls for cls in classes_of(package) if not cls.__name__.startswith("Dask")]
            names.update(("%s:%s" % (cls.__module__, cls.__qualname__), "N") for cls in found)
    for module in "metrics", "metrics.pairwise", "feature_selection", "preprocessing":
        module = importlib.import_module("sklearn." + module)
        for name in getattr(module, "__all__", dir(module)):
            func = getattr(module, name)
            if inspect.isfunction(func) and not name.startswith(("_", "plot_", "check_")):
                if func.__module__.startswith(module.__name__.rpartition(".pairwise")[0] or module.__name__):
                    names["%s:%s" % (func.__module__, func.__qualname__)] = "V"
    for module in "model_selection", "gaussian_process.kernels":
        module = importlib.import_module("sklearn." + module)
        for name in getattr(module, "__all__", dir(module)):
            cls = getattr(module, name)
            if inspect.isclass(cls) and cls.__module__.startswith(module.__name__) and "Display" not in name:
                names["%s:%s" % (cls.__module__, cls.__qualname__)] = "N"
    return names


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--small", action="store_true", help="only the selection that is committed")
    args = parser.parse_args()
    random.seed(0)
    np.random.seed(0)
    writer = Writer(args.out)
    if args.small:
        small(writer, models())
        writer.close()
    else:
        full(writer, models())
        writer.close({"versions": versions(), "offered": offered()})
    print("%d files" % len(writer.expected), file=sys.stderr)


if __name__ == "__main__":
    main()
