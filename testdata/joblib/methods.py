"""Writes manifest/joblib/policy/methods.txt: the names of what has code behind it.

    python methods.py

An attribute of an object hides the method of that name in its class. Where
loading calls the method, the file decides what is called. The table has the
methods and properties of all classes that allow.txt lists and that are
installed, private ones included, and of what such code takes its values for:
dicts, lists, arrays, frames. Names that honest models keep objects under are
left out. Run with the packages of requirements.txt; what was in the table stays.
"""

import importlib
import inspect
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import scipy.sparse

POLICY = Path(__file__).resolve().parents[2] / "manifest" / "joblib" / "policy"
LOOKS_LIKE = dict, list, set, str, bytes, np.ndarray, np.dtype, np.generic, pd.DataFrame, pd.Series, pd.Index, scipy.sparse.csr_matrix

# Attributes under which fitted models keep objects, though some class has a method of that name.
HONEST = """base_estimator_ best_score categories dist dtype freq kernel_ link owner random_state refit subtype tz""".split()


def code(cls: type) -> set[str]:
    """The names of the functions and properties of a class."""
    names = set()
    for base in inspect.getmro(cls):
        if base is object:
            continue
        for name, value in vars(base).items():
            if callable(value) or isinstance(value, (property, staticmethod, classmethod)):
                names.add(name)
    return names


def main() -> None:
    warnings.simplefilter("ignore")
    path = POLICY / "methods.txt"
    names = set()
    if path.exists():
        names = {line for line in path.read_text().splitlines() if line and not line.startswith("#")}
    for line in (POLICY / "allow.txt").read_text().splitlines():
        if line.startswith("#"):
            continue
        module, name, uses = line.split()[:3]
        if module.split(".")[0] == "builtins" or not set(uses) & set("NC"):
            continue
        try:
            cls = getattr(importlib.import_module(module), name)
        except Exception:  # of another release
            continue
        if inspect.isclass(cls):
            names |= code(cls)
    for cls in LOOKS_LIKE:
        names |= code(cls)
    names = {n for n in names if not (n.startswith("__") and n.endswith("__"))} - set(HONEST)
    path.write_text("# Written by testdata/joblib/methods.py. name\n" + "\n".join(sorted(names)) + "\n")


if __name__ == "__main__":
    main()
