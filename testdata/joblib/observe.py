"""Watches joblib.load read a trusted file, and says what the file made it do.

    python observe.py FILE...        prints one JSON object per file

Loading runs the file: only ever give it models you made yourself.

A file is loaded twice. First untouched, under an audit hook on
pickle.find_class: that gives the exact names asked for. Then once more with
joblib's own unpickler made to note how each of them is used:

    N   instantiated without arguments (NEWOBJ, copyreg._reconstructor, OBJ, INST)
    C   called with arguments, whose shape is noted
    V   handed on as a plain value
    D   an object of it receives SETITEM or SETITEMS
    L   an object of it receives APPEND or APPENDS

The two loads must name the same globals. Works with Python 3.7 and later (no
audit hook in 3.7) and joblib 0.13 and later.
"""

from __future__ import annotations

import _compat_pickle
import json
import pickle
import sys
import warnings
from collections import Counter
from contextlib import ExitStack
from unittest import mock

import joblib
import numpy as np
from joblib import numpy_pickle

LITERALS = (type(None), bool, int, float, complex, str, bytes, bytearray)


def mapped(module: str, name: str) -> tuple[str, str]:
    """Python 3's spelling of a global. No name of Python 3 is a key of these tables."""
    if (module, name) in _compat_pickle.NAME_MAPPING:
        return _compat_pickle.NAME_MAPPING[module, name]
    return _compat_pickle.IMPORT_MAPPING.get(module, module), name


class Record:
    """What one load did."""

    def __init__(self):
        self.globals = {}  # id -> (the object, "module:name"); keeping it keeps the id
        self.made = {}  # id -> (the object, the "module:name" that made it)
        self.uses = {}  # "module:name" -> Counter of letters
        self.args = {}  # "module:name" -> shapes of the arguments it was called with
        self.states = {}  # "module:name" -> shapes of the states its objects were given
        self.stamps = set()  # scikit-learn versions found in states

    def global_(self, obj) -> str | None:
        return self.globals.get(id(obj), (None, None))[1]

    def use(self, name: str, letter: str, n: int = 1):
        self.uses.setdefault(name, Counter())[letter] += n

    def values(self, items):
        for item in items:
            if self.global_(item):
                self.use(self.global_(item), "V")

    def make(self, callee, args, obj, new: bool):
        name = self.global_(callee) or "(computed)"
        if name == "copyreg:_reconstructor" and self.global_(args[0]):
            self.use(self.global_(args[0]), "V", -1)
            self.use(self.global_(args[0]), "N")
            self.made[id(obj)] = obj, self.global_(args[0])
        else:
            self.made[id(obj)] = obj, name
        if new and not args:
            self.use(name, "N")
        else:
            self.use(name, "C")
            shape = "(%s)" % ", ".join(self.shape(arg) for arg in args)
            self.args.setdefault(name, set()).add("new" + shape if new else shape)

    def touch(self, obj, letter: str):
        if id(obj) in self.made:
            self.use(self.made[id(obj)][1], letter)

    def build(self, obj, state):
        self.values([state])
        if isinstance(state, dict) and isinstance(state.get("_sklearn_version"), str):
            self.stamps.add(state["_sklearn_version"])
        if id(obj) in self.made:
            name = self.made[id(obj)][1]
            shape = "dict" if type(state) is dict else self.shape(state, 2)
            self.states.setdefault(name, set()).add(shape)

    def shape(self, x, depth: int = 2) -> str:
        if self.global_(x):
            return "global:" + self.global_(x)
        if type(x) in LITERALS:
            return type(x).__name__
        if type(x) in (tuple, list, set, frozenset, dict):
            items = list(x) + (list(x.values()) if type(x) is dict else [])
            inner = sorted({self.shape(item, depth - 1) for item in items}) if depth else ["..."]
            return "%s[%s]" % (type(x).__name__, "|".join(inner))
        if isinstance(x, np.dtype):
            return "dtype"
        return "array" if type(x) in (np.ndarray, np.matrix) else "object"


def noting(base, record: Record):
    """A subclass of an unpickler that notes in record what each opcode does."""

    class Noting(base):
        dispatch = dict(base.dispatch)

        def find_class(self, module, name):
            obj = super().find_class(module, name)
            if self.proto < 3 and self.fix_imports:
                module, name = mapped(module, name)
            record.globals[id(obj)] = obj, module + ":" + name
            record.uses.setdefault(module + ":" + name, Counter())
            return obj

    def note(opcode, before):
        original = base.dispatch[opcode[0]]

        def load(self):
            after = before(self)
            original(self)
            if after:
                after(self.stack[-1])

        Noting.dispatch[opcode[0]] = load

    def last(n):
        return lambda self: record.values(self.stack[-n:] if n else self.stack)

    for opcode, n in [
        (pickle.TUPLE1, 1), (pickle.TUPLE2, 2), (pickle.TUPLE3, 3), (pickle.STOP, 1),
        (pickle.TUPLE, 0), (pickle.LIST, 0), (pickle.DICT, 0),
        (pickle.FROZENSET, 0), (pickle.ADDITEMS, 0),
    ]:  # fmt: skip
        note(opcode, last(n))

    def fill(letter, n):
        def before(self):
            record.values(self.stack[-n:] if n else self.stack)
            record.touch(self.stack[-1 - n] if n else self.metastack[-1][-1], letter)

        return before

    note(pickle.APPEND, fill("L", 1))
    note(pickle.APPENDS, fill("L", 0))
    note(pickle.SETITEM, fill("D", 2))
    note(pickle.SETITEMS, fill("D", 0))

    def call(n, new=False):
        def before(self):
            callee, args = self.stack[-n], self.stack[1 - n]
            if n == 3:  # NEWOBJ_EX
                args = (*args, self.stack[-1])
            return lambda obj: record.make(callee, args, obj, new)

        return before

    note(pickle.REDUCE, call(2))
    note(pickle.NEWOBJ, call(2, new=True))
    note(pickle.NEWOBJ_EX, call(3, new=True))

    def obj_(self):
        callee, *args = self.stack
        return lambda obj: record.make(callee, args, obj, not args)

    note(pickle.OBJ, obj_)
    note(pickle.BUILD, lambda self: record.build(*self.stack[-2:]))
    return Noting


heard: list | None = None


def hear(event, args):
    if event == "pickle.find_class" and heard is not None:
        heard.append(tuple(args))


if hasattr(sys, "addaudithook"):
    sys.addaudithook(hear)


def observe(path) -> dict:
    """Loads path twice and returns what was heard and noted, ready for JSON."""
    global heard
    path, record = str(path), Record()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        heard = []
        joblib.load(path)
        raw, heard = set(heard), None

        plain = noting(pickle._Unpickler, record)
        with ExitStack() as stack:
            for target, new in [
                ("joblib.numpy_pickle.NumpyUnpickler", noting(numpy_pickle.NumpyUnpickler, record)),
                ("joblib.numpy_pickle.Unpickler", plain),  # object arrays, since joblib 1.6
                ("pickle.load", lambda file: plain(file).load()),  # and before
            ]:
                stack.enter_context(mock.patch(target, new))
            joblib.load(path)

    names = sorted("%s:%s" % mapped(*pair) for pair in raw) or sorted(record.uses)
    if names != sorted(record.uses):
        raise AssertionError("%s: heard %s, noted %s" % (path, names, sorted(record.uses)))
    return {
        "globals": names,
        "raw": sorted("%s:%s" % pair for pair in raw),
        "stamps": sorted(record.stamps),
        "uses": {
            name: {
                "uses": "".join(u for u in "NCVDL" if record.uses.get(name, {}).get(u)),
                "args": sorted(record.args.get(name, ())),
                "states": sorted(record.states.get(name, ())),
            }
            for name in sorted(set(record.uses) | set(record.args))
        },
    }


if __name__ == "__main__":
    for file in sys.argv[1:]:
        print(json.dumps({"file": file, **observe(file)}, indent=1))
