"""Write hostile model files and what to expect of them: attacks.py OUTDIR

Loading one of these files with joblib or pickle runs its payload, which is what
they are for: a reader that never loads must recognise every one. All that a
payload does is to create a directory named galley-marker (a small file where a
gadget can create nothing else). Load them with execute.py alone, which does so
in temporary directories.

The files are assembled from single opcodes, so nothing but Python's own library
is needed and the bytes are the same everywhere. OUTDIR/expected.txt has one line
for each:

    file verdict executes [needs] # description

verdict   the mildest verdict that is right: pass, review, unverifiable,
          dangerous, or error for what is no model at all
executes  what runs the payload: joblib, pickle, both, no, or crash when loading
          it ends the process or its memory
needs     what it takes to run it, with commas between: an importable module, or
          a version as in numpy<2 or python<3.13

The letters in a file's name are its group: J for joblib's arrays, G for the
stream of opcodes, R for containers and sizes, B for ways past other scanners, S
for states and for what passes for another format. companion.* are read by other
cases. The files whose verdict is pass are no attacks but limits: they are harmless,
and a reader must come to their end.
"""

import bz2
import hashlib
import io
import lzma
import struct
import sys
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

MARKER = "galley-marker"
CODE = f"import os; os.mkdir({MARKER!r})"
EXPRESSION = f"__import__('os').mkdir({MARKER!r})"
COMMAND = f"mkdir {MARKER}"


class Case(NamedTuple):
    name: str
    data: bytes
    verdict: str
    executes: str
    text: str
    needs: str = ""


# Opcodes. Each function returns the bytes that leave one value on the stack.

STOP = b"."
MARK = b"("
POP = b"0"
POP_MARK = b"1"
DUP = b"2"
NONE = b"N"
TRUE = b"\x88"
FALSE = b"\x89"
EMPTY_TUPLE = b")"
EMPTY_LIST = b"]"
EMPTY_DICT = b"}"
APPEND = b"a"
APPENDS = b"e"
SETITEM = b"s"
SETITEMS = b"u"
REDUCE = b"R"
BUILD = b"b"
NEWOBJ = b"\x81"
NEWOBJ_EX = b"\x92"
ADDITEMS = b"\x90"
STACK_GLOBAL = b"\x93"
MEMOIZE = b"\x94"


def u8(n: int) -> bytes:
    return struct.pack("<B", n)


def u32(n: int) -> bytes:
    return struct.pack("<I", n)


def u64(n: int) -> bytes:
    return struct.pack("<Q", n)


def proto(n: int) -> bytes:
    return b"\x80" + u8(n)


def frame(body: bytes, claimed: int | None = None) -> bytes:
    return b"\x95" + u64(len(body) if claimed is None else claimed) + body


def put(n: int) -> bytes:
    return b"q" + u8(n)


def get(n: int) -> bytes:
    return b"h" + u8(n)


def text(s: str) -> bytes:
    """A BINUNICODE."""
    raw = s.encode("utf-8", "surrogatepass")
    return b"X" + u32(len(raw)) + raw


def short_text(s: str) -> bytes:
    raw = s.encode("utf-8", "surrogatepass")
    return b"\x8c" + u8(len(raw)) + raw


def binary(raw: bytes) -> bytes:
    """A BINBYTES."""
    return b"B" + u32(len(raw)) + raw


def integer(n: int) -> bytes:
    if 0 <= n < 1 << 16:
        return b"K" + u8(n) if n < 256 else b"M" + struct.pack("<H", n)
    if -(1 << 31) <= n < 1 << 31:
        return b"J" + struct.pack("<i", n)
    raw = n.to_bytes(n.bit_length() // 8 + 1, "little", signed=True)
    return b"\x8a" + u8(len(raw)) + raw


def tuple_(*items: bytes) -> bytes:
    return MARK + b"".join(items) + b"t" if items else EMPTY_TUPLE


def list_(*items: bytes) -> bytes:
    return EMPTY_LIST + MARK + b"".join(items) + APPENDS if items else EMPTY_LIST


def dict_(*items: bytes) -> bytes:
    """A dict of alternating keys and values."""
    return EMPTY_DICT + MARK + b"".join(items) + SETITEMS if items else EMPTY_DICT


def glob(module: str, name: str) -> bytes:
    """A GLOBAL."""
    return f"c{module}\n{name}\n".encode()


def stack_global(module: str, name: str) -> bytes:
    return short_text(module) + short_text(name) + STACK_GLOBAL


def call(function: bytes, *args: bytes) -> bytes:
    return function + tuple_(*args) + REDUCE


def new(cls: bytes, *args: bytes) -> bytes:
    return cls + tuple_(*args) + NEWOBJ


def value(v: object) -> bytes:
    """What Python would write for a plain value; bytes of opcodes stay in Op."""
    if isinstance(v, Op):
        return v.code
    if v is None or isinstance(v, bool):
        return {None: NONE, True: TRUE, False: FALSE}[v]
    if isinstance(v, str):
        return text(v)
    if isinstance(v, bytes):
        return binary(v)
    if isinstance(v, int):
        return integer(v)
    if isinstance(v, tuple):
        return tuple_(*map(value, v))
    if isinstance(v, list):
        return list_(*map(value, v))
    if isinstance(v, dict):
        return dict_(*(value(x) for item in v.items() for x in item))
    raise TypeError(v)


class Op(NamedTuple):
    """Opcodes among the arguments of value."""

    code: bytes


MKDIR = glob("posix", "mkdir")
PAYLOAD = call(MKDIR, text(MARKER))
SLEEP = call(glob("time", "sleep"), integer(1))  # lets a thread get to work


# What joblib writes for an array.

NDARRAY = glob("numpy", "ndarray")
WRAPPER = glob("joblib.numpy_pickle", "NumpyArrayWrapper")
EMPTY_ARRAY = call(
    glob("numpy.core.multiarray", "_reconstruct"), NDARRAY, tuple_(integer(0)), binary(b"b")
)


def dtype(code: str, flags: int = 0, size: int = -1, order: str = "<") -> bytes:
    state = (3, order, None, None, None, size, 1 if size > 0 else -1, flags)
    return call(glob("numpy", "dtype"), text(code), FALSE, TRUE) + value(state) + BUILD


I8 = dtype("i8")
U1 = dtype("u1", order="|")
O8 = dtype("O8", 63, order="|")


def state(
    kind: bytes = I8,
    shape: bytes = b"",
    order: bytes = b"",
    align: bytes | None = NONE,
    subclass: bytes = NDARRAY,
    more: bytes = b"",
) -> bytes:
    """The state of a wrapper; align None leaves the key out."""
    items = text("subclass") + subclass
    items += text("shape") + (shape or tuple_(integer(1)))
    items += text("order") + (order or text("C"))
    items += text("dtype") + kind
    items += text("allow_mmap") + FALSE
    if align is not None:
        items += text("numpy_array_alignment_bytes") + align
    return dict_(items + more)


def wrapper(**kwargs: bytes | None) -> bytes:
    """A wrapper up to the BUILD that makes joblib read the array's bytes."""
    return new(WRAPPER) + state(**kwargs) + BUILD


def padded(before: bytes, raw: bytes) -> bytes:
    """Append an array's bytes at the alignment that joblib keeps."""
    n = 16 - (len(before) + 1) % 16
    return before + u8(n) + b"\xff" * n + raw


def swallow(size: int, hidden: bytes) -> bytes:
    """Size bytes of array followed by hidden opcodes, or as opcodes one BINBYTES."""
    return b"B" + u32(size - 5 + len(hidden)) + bytes(size - 5) + hidden


# A list left open for more items, as most of the files below begin and end.
OPEN = proto(3) + EMPTY_LIST + MARK
CLOSE = APPENDS + STOP


def nested(body: bytes, result: bytes = EMPTY_ARRAY) -> bytes:
    """The pickle of an object array's content, with something in front."""
    return proto(2) + body + result + STOP


def object_array(body: bytes) -> bytes:
    """An object array; its real content comes from joblib as a second pickle."""
    items = (1, (1,), Op(O8), False, ["a"])
    return wrapper(kind=O8, align=integer(16)) + nested(body, EMPTY_ARRAY + value(items) + BUILD)


def desynchronised(**kwargs: bytes | None) -> bytes:
    """A wrapper of 4 real elements of 8 bytes, and a payload after them."""
    return OPEN + wrapper(**kwargs) + swallow(32, PAYLOAD) + CLOSE


def joblib_cases() -> Iterator[Case]:
    hidden = PAYLOAD + POP

    # J1: in the frame a GLOBAL's first byte, c, passes for 99 bytes of padding.
    inside = PAYLOAD + POP + text("")[:1]
    filler = 1 + 99 + 8 - len(inside) - 4
    inside += u32(filler) + bytes(filler)
    body = EMPTY_LIST + MARK + wrapper(align=integer(16)) + inside + b"K\x01"
    raw = u8(ord("B")) + u32(66 + 8 - 4) + bytes(66 + 8 - 4)
    yield Case(
        "J1.joblib",
        proto(4) + frame(body) + raw + CLOSE,
        "unverifiable",
        "both",
        "opcodes after an array's BUILD in one frame; the array's bytes follow the frame",
    )
    body = EMPTY_LIST + MARK + wrapper(align=NONE) + PAYLOAD + CLOSE
    yield Case(
        "J1-stop.joblib",
        proto(4) + frame(body) + bytes(8),
        "unverifiable",
        "both",
        "the same with everything up to STOP in the frame",
    )

    flagged = dtype("i8", 63)
    size = 256
    content = nested(hidden, EMPTY_ARRAY)
    content = nested(hidden + binary(bytes(size - len(content) - 6)) + POP, EMPTY_ARRAY)
    assert len(content) == size
    yield Case(
        "J2.joblib",
        OPEN + wrapper(kind=flagged, align=integer(16)) + nested(hidden) + CLOSE,
        "unverifiable",
        "both",
        "dtype i8 whose flags say object: the array is read as a pickle",
    )
    yield Case(
        "J2-consistent.joblib",
        OPEN
        + wrapper(kind=flagged, shape=tuple_(integer(size // 8)), align=NONE)
        + content
        + CLOSE,
        "unverifiable",
        "both",
        "the same, both readings being of one length",
    )
    size = 1 + 0x80 + 128
    content = nested(hidden + binary(bytes(size - len(nested(hidden)) - 6)) + POP)
    assert len(content) == size
    yield Case(
        "J2-consistent-padding.joblib",
        OPEN
        + wrapper(kind=flagged, shape=tuple_(integer(16)), align=integer(16))
        + content
        + CLOSE,
        "unverifiable",
        "both",
        "the same with an alignment: PROTO passes for 128 bytes of padding",
    )
    yield Case(
        "J2b.joblib",
        OPEN
        + wrapper(kind=dtype("O8", 0, order="|"), align=NONE)
        + b"\x01" * 8
        + glob("builtins", "repr")
        + EMPTY_LIST
        + CLOSE,
        "unverifiable",
        "crash",
        "dtype O8 whose flags deny objects: raw pointers",
    )

    # numpy makes this a dtype of 16 bytes, so 2 elements are 32 bytes.
    wide = dtype("V8", size=16, order="|")
    two = tuple_(integer(2))
    j3 = OPEN + wrapper(kind=wide, shape=two, align=NONE) + bytes(16) + swallow(16, PAYLOAD) + CLOSE
    yield Case(
        "J3.joblib", j3, "unverifiable", "joblib", "dtype V8 whose state says 16 bytes per element"
    )
    yield Case(
        "J3-stop.joblib",
        OPEN
        + wrapper(kind=wide, shape=two, align=NONE)
        + bytes(16)
        + CLOSE.ljust(16)
        + PAYLOAD
        + CLOSE,
        "unverifiable",
        "joblib",
        "the same with a STOP in the second half of the array",
    )
    yield Case(
        "J3-unicode.joblib",
        OPEN
        + wrapper(kind=dtype("U1", 8, 16), shape=two, align=NONE)
        + bytes(8)
        + swallow(24, PAYLOAD)
        + CLOSE,
        "unverifiable",
        "joblib",
        "dtype U1 whose state says 16 bytes per element",
    )

    for name, module, cls, needs in [
        ("J4", "sklearn.cluster._birch", "_CFNode", "sklearn"),
        ("J4-gb-loss", "sklearn.ensemble._gb_losses", "BinomialDeviance", "sklearn<1.3"),
        ("J4-poly1d", "numpy", "poly1d", ""),
    ]:
        four = state(shape=tuple_(integer(4)))
        yield Case(
            f"{name}.joblib",
            OPEN
            + new(glob(module, cls))
            + tuple_(four, dict_(text("__class__"), WRAPPER))
            + BUILD
            + swallow(32, PAYLOAD)
            + CLOSE,
            "dangerous",
            "joblib",
            "another object becomes a wrapper through __class__",
            needs,
        )
    four = tuple_(integer(4))
    yield Case(
        "J5.joblib",
        OPEN
        + new(WRAPPER)
        + put(1)
        + state(shape=four)
        + BUILD
        + bytes(32)
        + get(1)
        + EMPTY_DICT
        + BUILD
        + swallow(32, PAYLOAD)
        + CLOSE,
        "unverifiable",
        "joblib",
        "a wrapper fetched from the memo and built again: a second array is read",
    )
    yield Case(
        "J5-dup.joblib",
        OPEN
        + new(WRAPPER)
        + DUP
        + state(shape=four)
        + BUILD
        + bytes(32)
        + POP
        + EMPTY_DICT
        + BUILD
        + swallow(32, PAYLOAD)
        + CLOSE,
        "unverifiable",
        "joblib",
        "the same with DUP in place of the memo",
    )
    poison = WRAPPER + tuple_(NONE, dict_(text("numpy_array_alignment_bytes"), integer(16))) + BUILD
    yield Case(
        "J6.joblib", OPEN + poison + CLOSE, "dangerous", "no", "BUILD on the wrapper's class"
    )
    yield Case(
        "J6-align.joblib",
        OPEN + poison + wrapper(align=None) + u8(16) + bytes(7) + swallow(17, PAYLOAD) + CLOSE,
        "dangerous",
        "joblib",
        "the same, which adds an alignment to a wrapper without one",
    )
    j7 = padded(OPEN + wrapper(align=integer(16)), bytes(8)) + PAYLOAD + CLOSE
    yield Case("J7.joblib", j7, "dangerous", "joblib", "a payload after the first array")
    first = proto(4) + frame(EMPTY_LIST + MARK + wrapper(align=integer(16)))
    yield Case(
        "J7-frames.joblib",
        padded(first, bytes(8)) + frame(call(stack_global("posix", "mkdir"), text(MARKER)) + CLOSE),
        "dangerous",
        "joblib",
        "the same with the frames of protocol 4",
    )
    yield Case(
        "J7-many.joblib",
        padded(
            padded(OPEN + wrapper(align=integer(16)), bytes(8)) + wrapper(align=integer(16)),
            bytes(8),
        )
        + PAYLOAD
        + CLOSE,
        "dangerous",
        "joblib",
        "a payload after the second array",
    )

    old = glob("joblib.numpy_pickle_compat", "NDArrayWrapper")
    for name, file, executes in [
        ("J8.joblib", "companion.npy", "joblib"),
        ("J8-absolute.joblib", "/nonexistent/companion.npy", "no"),
    ]:
        attributes = dict_(
            text("filename"), text(file), text("subclass"), NDARRAY, text("allow_mmap"), FALSE
        )
        yield Case(
            name,
            OPEN + new(old) + attributes + BUILD + CLOSE,
            "dangerous",
            executes,
            "joblib 0.9's wrapper: numpy.load of another file",
        )
    yield Case(
        "J8-znd.joblib",
        OPEN
        + new(glob("joblib.numpy_pickle_compat", "ZNDArrayWrapper"))
        + dict_(
            text("filename"),
            text("companion.npy.z"),
            text("init_args"),
            tuple_(NDARRAY, tuple_(integer(0)), binary(b"b")),
            text("state"),
            value((1, (1,), Op(I8), False)),
        )
        + BUILD
        + PAYLOAD
        + CLOSE,
        "dangerous",
        "both",
        "joblib 0.9's wrapper of a compressed file, then a payload",
    )
    yield Case(
        "J9.joblib",
        OPEN
        + wrapper(kind=U1, shape=tuple_(integer(len(PAYLOAD + CLOSE))), align=NONE)
        + PAYLOAD
        + CLOSE
        + CLOSE,
        "dangerous",
        "pickle",
        "an array whose bytes are opcodes to pickle.load alone",
    )
    j10 = OPEN + object_array(hidden) + CLOSE
    yield Case("J10.joblib", j10, "dangerous", "both", "a payload inside an object array")
    yield Case(
        "J10-feature-names.joblib",
        proto(3)
        + new(glob("sklearn.linear_model._base", "LinearRegression"))
        + EMPTY_DICT
        + MARK
        + text("fit_intercept")
        + TRUE
        + text("feature_names_in_")
        + object_array(hidden)
        + text("_sklearn_version")
        + text("1.2.1")
        + SETITEMS
        + BUILD
        + STOP,
        "dangerous",
        "both",
        "the same as the feature names of a model",
        "sklearn",
    )
    yield from joblib_shapes()
    yield from joblib_wrappers()
    for name, data in [("J3", j3), ("J7", j7), ("J10", j10)]:
        kind = "unverifiable" if name == "J3" else "dangerous"
        for method, compress in COMPRESSORS.items():
            yield Case(
                f"J14-{name}-{method}.joblib",
                compress(data),
                kind,
                "joblib",
                f"{name} compressed with {method}",
                "lz4" if method == "lz4" else "",
            )
    yield Case(
        "J14-plain-zlib.joblib",
        zlib.compress(proto(2) + PAYLOAD + STOP),
        "dangerous",
        "joblib",
        "a plain payload compressed with zlib",
    )
    yield Case(
        "J14-double-zlib.joblib",
        zlib.compress(zlib.compress(proto(2) + PAYLOAD + STOP)),
        "error",
        "no",
        "compressed twice, which joblib does not look for",
    )


def joblib_shapes() -> Iterator[Case]:
    """J11: impossible shapes and other attributes."""
    for name, kwargs, executes in [
        ("shape-string", {"shape": tuple_(text("4"))}, "no"),
        ("shape-negative", {"shape": tuple_(integer(-1))}, "no"),
        ("shape-negatives", {"shape": tuple_(integer(-2), integer(-2))}, "no"),
        ("shape-overflow", {"shape": tuple_(integer(1 << 32), integer(1 << 32))}, "no"),
        ("shape-wraps", {"shape": tuple_(integer((1 << 62) + 1), integer(4))}, "no"),
        ("shape-33", {"shape": tuple_(integer(4), *[integer(1)] * 32)}, "joblib"),
        ("shape-list", {"shape": list_(integer(4))}, "joblib"),
        ("shape-bool", {"shape": tuple_(TRUE, integer(4))}, "no"),
        ("shape-float", {"shape": tuple_(b"G" + struct.pack(">d", 4.5))}, "no"),
        ("shape-call", {"shape": call(glob("builtins", "tuple"), list_(integer(4)))}, "joblib"),
        ("order-k", {"shape": tuple_(integer(4)), "order": text("K")}, "joblib"),
        ("order-none", {"shape": tuple_(integer(4)), "order": NONE}, "joblib"),
    ]:
        yield Case(
            f"J11-{name}.joblib",
            desynchronised(**kwargs),
            "unverifiable",
            executes,
            "a wrapper that joblib never writes, then a payload",
            "numpy>=2" if name == "shape-33" else "",
        )
    for name, align in [
        ("8", integer(8)),
        ("0", integer(0)),
        ("false", FALSE),
        ("string", text("16")),
        ("list", EMPTY_LIST),
    ]:
        yield Case(
            f"J11-align-{name}.joblib",
            OPEN + wrapper(align=align) + u8(16) + bytes(7) + swallow(17, PAYLOAD) + CLOSE,
            "unverifiable",
            "joblib",
            "an alignment that is not 16 still means that padding follows",
        )
    before = OPEN + wrapper(align=integer(16))
    yield Case(
        "J11-padding-255.joblib",
        before + u8(255) + b"\xff" * 255 + bytes(8) + CLOSE,
        "review",
        "no",
        "padding longer than joblib writes",
    )
    yield Case(
        "J11-padding-0.joblib", before + u8(0) + bytes(8) + CLOSE, "review", "no", "no padding"
    )
    n = 16 - (len(before) + 1) % 16
    yield Case(
        "J11-filler.joblib",
        before + u8(n) + (b"ignored" * 3)[:n] + bytes(8) + CLOSE,
        "review",
        "no",
        "padding with bytes other than ff",
    )
    yield Case(
        "J11-padding-payload.joblib",
        before + u8(255) + (PAYLOAD + CLOSE).ljust(255, b".") + bytes(8) + PAYLOAD + CLOSE,
        "dangerous",
        "joblib",
        "padding that holds opcodes, and a payload after the array",
    )
    for name, code in [
        ("name", "float64"),
        ("char", "d"),
        ("struct", "i4,f4"),
        ("subarray", "(2,)i4"),
    ]:
        yield Case(
            f"J11-dtype-{name}.joblib",
            OPEN
            + wrapper(
                kind=call(glob("numpy", "dtype"), text(code), FALSE, TRUE),
                shape=tuple_(integer(4)),
                align=NONE,
            )
            + swallow(32, PAYLOAD)
            + CLOSE,
            "unverifiable",
            "no" if name == "subarray" else "joblib",
            f"dtype {code}, a spelling that numpy never writes",
        )
    kind = call(
        glob("numpy", "dtype"),
        value({"names": ["a"], "formats": ["i1"], "itemsize": 8}),
        FALSE,
        TRUE,
    )
    yield Case(
        "J11-dtype-dict.joblib",
        desynchronised(kind=kind, shape=tuple_(integer(4))),
        "unverifiable",
        "joblib",
        "a dtype made of a dict, of 8 bytes for 1 of data",
    )


def joblib_wrappers() -> Iterator[Case]:
    """J12 and J13: wrappers that come about in other ways."""
    four = tuple_(integer(4))
    for name, kwargs, verdict, why in [
        (
            "extra-key",
            {"shape": four, "more": text("extra") + integer(1)},
            "unverifiable",
            "an unknown key",
        ),
        (
            "duplicate-shape",
            {"more": text("shape") + four},
            "unverifiable",
            "the shape a second time",
        ),
        (
            "duplicate-dtype",
            {"more": text("dtype") + dtype("c32")},
            "unverifiable",
            "the dtype a second time",
        ),
        (
            "duplicate-align",
            {
                "align": integer(16),
                "shape": four,
                "more": text("numpy_array_alignment_bytes") + NONE,
            },
            "unverifiable",
            "the alignment a second time",
        ),
        (
            "setitems",
            {"more": SETITEMS + MARK + text("shape") + four},
            "unverifiable",
            "a second SETITEMS that changes the shape",
        ),
        (
            "setitems-dtype",
            {"more": SETITEMS + MARK + text("dtype") + dtype("c32")},
            "unverifiable",
            "a second SETITEMS that changes the dtype",
        ),
    ]:
        yield Case(f"J12-{name}.joblib", desynchronised(**kwargs), verdict, "joblib", why)

    partial = glob("functools", "partial")
    shadow = new(partial, MKDIR) + value((Op(MKDIR), (MARKER,), {}, None)) + BUILD
    yield Case(
        "J12-shadow.joblib",
        OPEN
        + wrapper(more=text("safe_get_numpy_array_alignment_bytes") + shadow)
        + bytes(8)
        + CLOSE,
        "dangerous",
        "joblib",
        "a state that replaces one of the wrapper's methods",
    )
    arguments = NDARRAY + four + text("C") + I8 + FALSE + NONE
    tail = swallow(32, PAYLOAD) + CLOSE
    built = EMPTY_DICT + BUILD + tail
    base = glob("copyreg", "_reconstructor") + MARK + WRAPPER
    for name, made, executes in [
        ("obj", MARK + WRAPPER + arguments + b"o" + built, "joblib"),
        ("inst", MARK + arguments + b"ijoblib.numpy_pickle\nNumpyArrayWrapper\n" + built, "joblib"),
        ("reduce", WRAPPER + MARK + arguments + b"t" + REDUCE + built, "joblib"),
        (
            "newobj-ex",
            WRAPPER + EMPTY_TUPLE + EMPTY_DICT + NEWOBJ_EX + state(shape=four) + BUILD + tail,
            "joblib",
        ),
        (
            "reconstructor-base",
            base + WRAPPER + NONE + b"t" + REDUCE + state(shape=four) + BUILD + tail,
            "no",
        ),
        (
            "reconstructor-ndarray",
            base + NDARRAY + NONE + b"t" + REDUCE + state(shape=four) + BUILD + tail,
            "no",
        ),
        (
            "slots",
            new(WRAPPER) + tuple_(state(), dict_(text("shape"), four)) + BUILD + tail,
            "joblib",
        ),
        (
            "slots-only",
            new(WRAPPER) + tuple_(NONE, state(shape=four)) + BUILD + tail,
            "joblib",
        ),
        (
            "ordered",
            new(WRAPPER)
            + glob("collections", "OrderedDict")
            + EMPTY_TUPLE
            + REDUCE
            + state(shape=four)[1:]
            + BUILD
            + tail,
            "joblib",
        ),
        (
            "memo-state",
            state()
            + put(7)
            + POP
            + new(WRAPPER)
            + get(7)
            + MARK
            + text("shape")
            + four
            + SETITEMS
            + BUILD
            + tail,
            "joblib",
        ),
        (
            "state-changed",
            new(WRAPPER)
            + put(6)
            + POP
            + state()
            + put(7)
            + POP
            + get(7)
            + text("shape")
            + four
            + SETITEM
            + POP
            + get(6)
            + get(7)
            + BUILD
            + tail,
            "joblib",
        ),
        (
            "dtype-changed",
            dtype("V8", order="|", size=8)
            + put(7)
            + POP
            + new(WRAPPER)
            + state(kind=get(7), shape=tuple_(integer(2)))
            + get(7)
            + value((3, "|", None, None, None, 16, 1, 0))
            + BUILD
            + POP
            + BUILD
            + bytes(16)
            + swallow(16, PAYLOAD)
            + CLOSE,
            "joblib",
        ),
    ]:
        yield Case(
            f"J12-{name}.joblib",
            OPEN + made,
            "unverifiable",
            executes,
            "a wrapper made or filled in another way, then a payload",
        )
    # No array is read inside the second pickle: what follows BUILD are opcodes.
    opcodes = POP + PAYLOAD + POP
    inner = wrapper(kind=U1, shape=tuple_(integer(len(opcodes))), align=NONE) + opcodes
    yield Case(
        "J12-nested.joblib",
        OPEN + wrapper(kind=O8, align=NONE) + nested(inner) + CLOSE,
        "unverifiable",
        "both",
        "a wrapper inside an object array, whose bytes are opcodes",
    )
    for name, subclass, executes in [
        ("function", glob("numpy", "mean"), "no"),
        ("unknown", glob("mypkg.arrays", "Array"), "no"),
        ("mkdir", MKDIR, "no"),
        ("string", text("ndarray"), "no"),
    ]:
        yield Case(
            f"J13-{name}.joblib",
            OPEN + wrapper(subclass=subclass) + bytes(8) + CLOSE,
            "dangerous" if name == "mkdir" else "unverifiable",
            executes,
            "a subclass that is none of numpy's",
        )


# Containers.


def gzip_member(
    data: bytes, flags: int = 0, extra: bytes = b"", crc: int = 0, size: int = 0
) -> bytes:
    raw = zlib.compressobj(9, zlib.DEFLATED, -15)
    body = raw.compress(data) + raw.flush()
    header = b"\x1f\x8b\x08" + u8(flags) + bytes(4) + b"\x00\x03" + extra
    return header + body + u32(zlib.crc32(data) ^ crc) + u32(len(data) ^ size)


def xxh32(data: bytes) -> int:
    """The checksum in the header of an lz4 frame, for less than 16 bytes."""
    mask = 0xFFFFFFFF
    assert len(data) < 16
    h = (0x165667B1 + len(data)) & mask
    while len(data) >= 4:
        h = (h + int.from_bytes(data[:4], "little") * 0xC2B2AE3D) & mask
        h = ((h << 17 | h >> 15) * 0x27D4EB2F) & mask
        data = data[4:]
    for byte in data:
        h = (h + byte * 0x165667B1) & mask
        h = ((h << 11 & mask | h >> 21) * 0x9E3779B1) & mask
    h = ((h ^ h >> 15) * 0x85EBCA77) & mask
    h = ((h ^ h >> 13) * 0xC2B2AE3D) & mask
    return h ^ h >> 16


def lz4_frame(data: bytes) -> bytes:
    """One block, not compressed."""
    assert len(data) <= 64 << 10
    descriptor = b"\x60\x40"
    checksum = u8(xxh32(descriptor) >> 8 & 0xFF)
    return b"\x04\x22\x4d\x18" + descriptor + checksum + u32(len(data) | 1 << 31) + data + u32(0)


def xz(data: bytes) -> bytes:
    return lzma.compress(data, lzma.FORMAT_XZ)


def lzma_alone(data: bytes) -> bytes:
    return lzma.compress(data, lzma.FORMAT_ALONE)


COMPRESSORS = {
    "zlib": zlib.compress,
    "gzip": gzip_member,
    "bz2": bz2.compress,
    "xz": xz,
    "lzma": lzma_alone,
    "lz4": lz4_frame,
}


def generic_cases() -> Iterator[Case]:
    yield from basic_calls()
    yield from operands()
    yield from callees()
    yield from broken_streams()
    yield from gadgets()
    yield from library_gadgets()


def basic_calls() -> Iterator[Case]:
    for n in range(6):
        head = proto(n) if n >= 2 else b""
        old = b"cposix\nmkdir\n(V" + MARKER.encode() + b"\ntR"
        yield Case(
            f"G1-global-{n}.pkl",
            head + (PAYLOAD if n else old) + STOP,
            "dangerous",
            "both",
            f"a call of mkdir in protocol {n}, by GLOBAL",
        )
        if n >= 4:
            body = call(stack_global("posix", "mkdir"), short_text(MARKER)) + STOP
            yield Case(
                f"G1-stack-global-{n}.pkl",
                head + frame(body),
                "dangerous",
                "both",
                f"a call of mkdir in protocol {n}, by STACK_GLOBAL",
            )
    yield Case(
        "G1-system.pkl",
        proto(4) + call(stack_global("os", "system"), text(COMMAND)) + STOP,
        "dangerous",
        "both",
        "os.system",
    )


def operands() -> Iterator[Case]:
    """G2 to G4: the names of a global from elsewhere."""
    done = tuple_(text(MARKER)) + REDUCE + STOP
    for name, made, why in [
        (
            "memo",
            text("posix") + put(0) + POP + text("mkdir") + put(1) + POP + get(0) + get(1),
            "names from the memo",
        ),
        (
            "decoy",
            b"".join(text(s) + MEMOIZE for s in ["sklearn.pipeline", "Pipeline", "posix", "mkdir"])
            + POP * 4
            + get(2)
            + get(3),
            "harmless names stored first",
        ),
        (
            "overwritten",
            text("sklearn.pipeline")
            + put(0)
            + POP
            + text("posix")
            + put(0)
            + POP
            + get(0)
            + text("mkdir"),
            "a memo slot overwritten",
        ),
        (
            "sparse",
            text("collections")
            + put(5)
            + POP
            + text("posix")
            + MEMOIZE
            + POP
            + get(1)
            + text("mkdir"),
            "MEMOIZE counts the slots, not the highest",
        ),
        (
            "sparse-overwrites",
            text("posix")
            + put(0)
            + POP
            + text("sklearn")
            + put(2)
            + POP
            + text("mkdir")
            + MEMOIZE
            + POP
            + get(0)
            + get(2),
            "MEMOIZE overwrites a slot that PUT filled",
        ),
        (
            "text-memo",
            text("posix") + b"p1000\n" + POP + b"g1000\n" + text("mkdir"),
            "PUT and GET as text",
        ),
        (
            "long-memo",
            text("posix") + b"r" + u32(70000) + POP + b"j" + u32(70000) + text("mkdir"),
            "LONG_BINPUT and LONG_BINGET",
        ),
        (
            "popped",
            text("posix") + text("numpy") + POP + text("mkdir"),
            "another name popped between",
        ),
        (
            "dup",
            text("mkdir") + text("posix") + DUP + put(0) + POP + POP + POP + get(0) + text("mkdir"),
            "DUP before PUT",
        ),
        (
            "tuple",
            tuple_(text("sklearn.pipeline"), text("Pipeline"))
            + POP
            + text("posix")
            + text("mkdir"),
            "a decoy tuple before the names",
        ),
    ]:
        yield Case(
            f"G2-{name}.pkl", proto(4) + made + STACK_GLOBAL + done, "dangerous", "both", why
        )
    for name, module, function, why in [
        ("string-escapes", b"S'po\\x73ix'\n", b"S'mkdi\\162'\n", "STRING with escapes"),
        ("string-quotes", b'S"posix"\n', b"S'mkdir'\n", "STRING with two kinds of quotes"),
        ("unicode-escapes", b"Vpo\\u0073ix\n", b"V\\U0000006dkdir\n", "UNICODE with escapes"),
        ("short-binstring", b"U\x05posix", b"U\x05mkdir", "SHORT_BINSTRING"),
        ("binstring", b"T" + u32(5) + b"posix", b"T" + u32(5) + b"mkdir", "BINSTRING"),
        ("binunicode8", b"\x8d" + u64(5) + b"posix", b"\x8d" + u64(5) + b"mkdir", "BINUNICODE8"),
        ("mixed", b"\x8d" + u64(5) + b"posix", b"U\x05mkdir", "two kinds of strings"),
    ]:
        yield Case(
            f"G3-{name}.pkl",
            proto(4) + module + function + STACK_GLOBAL + done,
            "dangerous",
            "both",
            why,
        )
    decode = glob("_codecs", "decode")
    rot13 = glob("codecs", "decode")
    for name, module, verdict in [
        ("decode", call(decode, binary(b"posix"), text("ascii")), "unverifiable"),
        ("rot13", call(rot13, text("cbfvk"), text("rot13")), "unverifiable"),
        ("str", call(glob("builtins", "str"), text("posix")), "unverifiable"),
        (
            "join",
            call(glob("builtins", "str.join"), text(""), list_(text("po"), text("six"))),
            "unverifiable",
        ),
    ]:
        yield Case(
            f"G4-{name}.pkl",
            proto(4) + module + text("mkdir") + STACK_GLOBAL + done,
            verdict,
            "both",
            "a module's name computed by a call",
        )


def callees() -> Iterator[Case]:
    """G5 to G10: other opcodes that call, and other names of what they call."""
    name = text(MARKER)
    memmap = glob("numpy", "memmap")
    popen = glob("subprocess", "Popen")
    argv = value(["mkdir", MARKER])
    for case, data, executes, why in [
        ("inst", proto(2) + MARK + name + b"iposix\nmkdir\n", "both", "INST"),
        ("obj", proto(2) + MARK + MKDIR + name + b"o", "both", "OBJ"),
        ("obj-popen", proto(2) + MARK + popen + argv + b"o", "both", "OBJ of a class"),
        ("inst-popen", proto(2) + MARK + argv + b"isubprocess\nPopen\n", "both", "INST of a class"),
        ("newobj-popen", proto(2) + new(popen, argv), "no", "NEWOBJ of subprocess.Popen"),
        (
            "newobj-memmap",
            proto(2) + new(memmap, name, text("u1"), text("w+"), integer(0), integer(1)),
            "both",
            "NEWOBJ of numpy.memmap",
        ),
        (
            "newobj-ex-memmap",
            proto(4) + memmap + tuple_(name) + value({"mode": "w+", "shape": 1}) + NEWOBJ_EX,
            "both",
            "NEWOBJ_EX of numpy.memmap",
        ),
        (
            "newobj-ex-popen",
            proto(4) + popen + tuple_() + value({"args": ["true"]}) + NEWOBJ_EX,
            "no",
            "NEWOBJ_EX of subprocess.Popen",
        ),
        ("reduce-list", proto(2) + MKDIR + list_(name) + REDUCE, "joblib", "a list as arguments"),
        (
            "reduce-dict",
            proto(2) + MKDIR + dict_(name, NONE) + REDUCE,
            "joblib",
            "a dict as arguments",
        ),
        (
            "reduce-set",
            proto(4) + MKDIR + b"\x8f" + MARK + name + b"\x90" + REDUCE,
            "joblib",
            "a set as arguments",
        ),
        (
            "reduce-string",
            proto(2) + call(glob("builtins", "eval"), text(EXPRESSION)),
            "both",
            "eval",
        ),
        ("dup", proto(2) + MKDIR + DUP + tuple_(name) + REDUCE, "both", "the callee by DUP"),
        (
            "memo-callee",
            proto(2) + MKDIR + put(0) + POP + EMPTY_LIST + POP + get(0) + tuple_(name) + REDUCE,
            "both",
            "the callee from the memo",
        ),
        (
            "tuple1",
            proto(2) + MKDIR + name + b"\x85" + REDUCE,
            "both",
            "TUPLE1",
        ),
        (
            "memo-arguments",
            proto(2) + tuple_(name) + put(0) + POP + MKDIR + get(0) + REDUCE,
            "both",
            "the arguments from the memo",
        ),
    ]:
        yield Case(f"G5-{case}.pkl", data + STOP, "dangerous", executes, why)

    code = text(EXPRESSION)
    for case, data, executes, why in [
        ("commands", proto(2) + call(glob("commands", "getoutput"), text(COMMAND)), "both", ""),
        ("builtin", proto(2) + call(glob("__builtin__", "eval"), code), "both", ""),
        ("builtin-0", b"c__builtin__\neval\n(S" + repr(EXPRESSION).encode() + b"\ntR", "both", ""),
        ("apply", proto(2) + call(glob("__builtin__", "apply"), MKDIR, tuple_(name)), "no", ""),
        ("urllib2", proto(2) + call(glob("urllib2", "urlopen"), text("data:,x")), "no", ""),
        (
            "thread",
            proto(2) + call(glob("thread", "start_new_thread"), MKDIR, tuple_(name)) + POP + SLEEP,
            "both",
            "",
        ),
        (
            "imap",
            proto(2)
            + call(
                glob("collections", "deque"), call(glob("itertools", "imap"), MKDIR, list_(name))
            ),
            "both",
            "",
        ),
        (
            "reduce",
            proto(2) + call(glob("__builtin__", "reduce"), MKDIR, list_(name, integer(0o755))),
            "both",
            "",
        ),
        (
            "late-proto",
            proto(4)
            + EMPTY_LIST
            + POP
            + proto(2)
            + call(glob("commands", "getoutput"), text(COMMAND)),
            "both",
            "PROTO 2 in mid-stream",
        ),
        (
            "late-proto-4",
            proto(2) + NONE + POP + proto(4) + call(glob("joblib.numpy_pickle", "os.mkdir"), name),
            "both",
            "PROTO 4 in mid-stream",
        ),
        (
            "stack-global-2",
            proto(2) + call(text("commands") + text("getoutput") + STACK_GLOBAL, text(COMMAND)),
            "both",
            "",
        ),
    ]:
        yield Case(
            f"G6-{case}.pkl", data + STOP, "dangerous", executes, why or "a name of Python 2"
        )

    transport = stack_global("asyncio.unix_events", "_UnixSubprocessTransport._start")
    dummy = new(stack_global("joblib.numpy_pickle", "NumpyArrayWrapper"))
    start = value((Op(dummy), ["mkdir", MARKER], False, None, None, None, 0))
    transformer = stack_global("sklearn.preprocessing._function_transformer", "FunctionTransformer")
    itself = (
        new(transformer) + value({"func": Op(MKDIR), "validate": False, "kw_args": None}) + BUILD
    )
    transform = call(
        stack_global(
            "sklearn.preprocessing._function_transformer", "FunctionTransformer._transform"
        ),
        itself,
        name,
        MKDIR,
    )
    for case, data, executes, needs in [
        ("joblib", call(stack_global("joblib.numpy_pickle", "os.mkdir"), name), "both", ""),
        ("joblib-global", call(glob("joblib.numpy_pickle", "os.mkdir"), name), "both", ""),
        (
            "sklearn",
            call(stack_global("sklearn.datasets._base", "os.mkdir"), name),
            "both",
            "sklearn",
        ),
        (
            "numpy-1",
            call(stack_global("numpy.core.overrides", "os.mkdir"), name),
            "both",
            "numpy<2",
        ),
        (
            "numpy-2",
            call(stack_global("numpy._core.records", "os.mkdir"), name),
            "both",
            "numpy>=2",
        ),
        ("transformer", transform, "both", "sklearn"),
        ("asyncio", transport + start + REDUCE, "both", ""),
        (
            "globals",
            stack_global("joblib.numpy_pickle", "NumpyArrayWrapper.read.__globals__"),
            "no",
            "",
        ),
        (
            "deep",
            call(stack_global("joblib.numpy_pickle", "pickle.sys.modules.get"), text("os")),
            "no",
            "",
        ),
    ]:
        yield Case(
            f"G7-{case}.pkl", proto(4) + data + STOP, "dangerous", executes, "a dotted name", needs
        )
    module = glob("joblib.numpy_pickle", "os")
    attrgetter = call(glob("operator", "attrgetter"), text("mkdir"))
    for case, data, executes, needs, why in [
        ("module", glob("sklearn.datasets._base", "os"), "no", "sklearn", "a module as a global"),
        ("joblib", module, "no", "", "a module as a global"),
        (
            "call",
            attrgetter + tuple_(module) + REDUCE + tuple_(name) + REDUCE,
            "both",
            "",
            "and its use",
        ),
        (
            "build",
            module + tuple_(NONE, dict_(text("galley"), integer(1))) + BUILD,
            "no",
            "",
            "BUILD on a module",
        ),
    ]:
        yield Case(f"G8-{case}.pkl", proto(2) + data + STOP, "dangerous", executes, why, needs)
    extend = glob("copyreg", "add_extension")
    for case, number, opcode in [
        ("ext1", 240, b"\x82" + u8(240)),
        ("ext2", 4096, b"\x83" + struct.pack("<H", 4096)),
        ("ext4", 1 << 20, b"\x84" + u32(1 << 20)),
    ]:
        register = call(extend, text("posix"), text("mkdir"), integer(number)) + POP
        yield Case(
            f"G9-{case}.pkl",
            proto(2) + register + call(opcode, name) + STOP,
            "dangerous",
            "both",
            "a name from the extension registry, registered first",
        )
        yield Case(
            f"G9-{case}-only.pkl",
            proto(2) + call(opcode, name) + STOP,
            "unverifiable",
            "no",
            "a name from the extension registry",
        )
    for case, data, why in [
        ("pop", PAYLOAD + POP + EMPTY_LIST, "a call whose result is popped"),
        ("pop-mark", MARK + PAYLOAD + POP_MARK + EMPTY_LIST, "a call inside POP_MARK"),
        ("pop-pops-mark", MARK + POP + MARK + PAYLOAD + POP + POP + EMPTY_LIST, "POP on a mark"),
        ("obj-pop", MARK + MKDIR + name + b"o" + POP + EMPTY_LIST, "OBJ whose result is popped"),
        (
            "build",
            PAYLOAD + POP + new(glob("numpy", "poly1d")) + dict_() + BUILD,
            "a BUILD at the end",
        ),
        (
            "build-result",
            call(glob("builtins", "eval"), text(f"[{EXPRESSION}, type('A', (), {{}})()][1]"))
            + dict_(text("a"), integer(1))
            + BUILD,
            "a call whose result is built",
        ),
        ("memo-pop", PAYLOAD + put(0) + POP + get(0), "a call kept in the memo"),
        ("key", EMPTY_DICT + PAYLOAD + integer(1) + SETITEM, "a call as a key"),
        ("leftover", PAYLOAD + EMPTY_LIST, "a call left on the stack"),
    ]:
        yield Case(f"G10-{case}.pkl", proto(2) + data + STOP, "dangerous", "both", why)


def broken_streams() -> Iterator[Case]:
    """G11 to G14 and G17."""
    start = proto(2) + PAYLOAD
    for case, tail, why in [
        ("invalid", b"\xff", "an invalid opcode"),
        ("invalid-nul", bytes(8), "NUL bytes"),
        ("truncated", b"X\xff\xff", "a truncated argument"),
        ("no-stop", b"", "no STOP"),
        ("memo-miss", get(99) + STOP, "a memo slot never filled"),
        ("underflow", POP * 5 + STOP, "an empty stack"),
        ("no-mark", b"t" + STOP, "a mark that is missing"),
        ("bad-int", b"Ix\n" + STOP, "a number that is none"),
        ("bad-utf8", b"X" + u32(2) + b"\xff\xfe" + STOP, "a string that is not UTF-8"),
        ("import", glob("mypkg_missing.models", "Model") + STOP, "a module that is missing"),
        ("proto-6", proto(6) + STOP, "an unknown protocol"),
        ("text", b"this is where the model ends\n", "text"),
    ]:
        yield Case(
            f"G11-{case}.pkl", start + tail, "dangerous", "both", f"after the payload: {why}"
        )
    clean = proto(2) + EMPTY_LIST + STOP
    zipped = archive([("data.pkl", clean, {})])
    for case, data, verdict, executes, why in [
        ("second-pickle", clean + start + STOP, "review", "no", "a second pickle after STOP"),
        ("zip-appended", clean + zipped, "review", "no", "a zip after STOP"),
        ("7z-appended", clean + SEVENZIP, "review", "no", "a 7z archive after STOP"),
        ("junk-appended", clean + b"junk", "review", "no", "junk after STOP"),
        ("payload-zip", start + STOP + zipped, "dangerous", "both", "a zip after a payload"),
        (
            "payload-7z",
            start + STOP + SEVENZIP,
            "dangerous",
            "both",
            "a 7z archive after a payload",
        ),
        ("zip-prefixed", zipped + start + STOP, "error", "no", "a zip before the pickle"),
        ("7z-prefixed", SEVENZIP + start + STOP, "error", "no", "a 7z archive before the pickle"),
        ("text-prefixed", b"# a model\n" + start + STOP, "error", "no", "text before the pickle"),
        (
            "opcodes-prefixed",
            b"S'a model'\n0" + start + STOP,
            "dangerous",
            "both",
            "text that is opcodes before PROTO",
        ),
    ]:
        yield Case(f"G12-{case}.pkl", data, verdict, executes, why)

    long = binary(bytes(32))
    for case, data, executes, why in [
        (
            "straddle",
            frame(long + POP + EMPTY_LIST, 20) + PAYLOAD + STOP,
            "pickle",
            "a string longer than its frame",
        ),
        (
            "straddle-line",
            frame(b"S'aaaaaaaaaaaaaaaaaaaa'\n0", 8) + PAYLOAD + STOP,
            "pickle",
            "a line longer than its frame",
        ),
        (
            "nested",
            frame(EMPTY_LIST + frame(POP, 1) + NONE + POP + PAYLOAD + STOP),
            "pickle",
            "a frame inside a frame",
        ),
        (
            "nested-exact",
            frame(EMPTY_LIST + frame(POP + PAYLOAD + STOP)),
            "pickle",
            "a frame inside a frame, both ending together",
        ),
        (
            "beyond",
            frame(PAYLOAD + STOP, 1 << 20),
            "joblib",
            "a frame longer than the file",
        ),
        ("short", frame(PAYLOAD[:3], 3) + PAYLOAD[3:] + STOP, "pickle", "a GLOBAL across frames"),
        (
            "split",
            frame(MKDIR) + frame(tuple_(text(MARKER))) + frame(REDUCE + STOP),
            "both",
            "one opcode or two for each frame",
        ),
        ("empty", frame(b"") + frame(b"") + PAYLOAD + STOP, "both", "empty frames"),
        ("proto-2", proto(2) + frame(PAYLOAD + STOP), "both", "a frame in protocol 2"),
    ]:
        verdict = "dangerous" if executes == "both" else "unverifiable"
        # The C unpickler looked over the ends of frames before.
        needs = "python<3.13.15" if executes == "pickle" else ""
        yield Case(f"G13-{case}.pkl", proto(4) + data, verdict, executes, why, needs)

    for case, data, verdict, executes, why in [
        ("persid", proto(0)[:0] + b"Pmodel\n" + STOP, "unverifiable", "no", "PERSID"),
        ("binpersid", proto(2) + text("model") + b"Q" + STOP, "unverifiable", "no", "BINPERSID"),
        ("next-buffer", proto(5) + b"\x97" + STOP, "unverifiable", "no", "NEXT_BUFFER"),
        (
            "readonly-buffer",
            proto(5) + b"\x96" + u64(4) + bytes(4) + b"\x98" + STOP,
            "unverifiable",
            "no",
            "READONLY_BUFFER",
        ),
        (
            "persid-after",
            proto(2) + PAYLOAD + text("a") + b"Q" + STOP,
            "dangerous",
            "both",
            "BINPERSID after a payload",
        ),
        ("proto-6", proto(6) + PAYLOAD + STOP, "unverifiable", "no", "protocol 6"),
        ("proto-255", proto(255) + PAYLOAD + STOP, "unverifiable", "no", "protocol 255"),
        ("no-proto", PAYLOAD + STOP, "dangerous", "both", "no PROTO before binary opcodes"),
        (
            "second-proto",
            proto(2) + NONE + POP + proto(3) + PAYLOAD + STOP,
            "dangerous",
            "both",
            "PROTO twice",
        ),
    ]:
        yield Case(f"G14-{case}.pkl", data, verdict, executes, why)

    name = text(MARKER)
    for case, module, function, verdict, why in [
        ("cyrillic", "pоsix", "mkdir", "review", "a Cyrillic letter in the module"),
        (
            "cyrillic-sklearn",
            "sklearn.pipelinе",
            "Pipeline",
            "review",
            "a Cyrillic letter in the module",
        ),
        ("fullwidth", "ｐosix", "mkdir", "review", "a fullwidth letter in the module"),
        ("nul", "posix\0", "mkdir", "review", "NUL in the module"),
        ("nul-sklearn", "sklearn.pipeline\0", "Pipeline", "review", "NUL in the module"),
        ("cr", "posix\r", "mkdir\r", "review", "CR in the names"),
        ("cr-sklearn", "sklearn.pipeline\r", "Pipeline\r", "review", "CR in the names"),
        ("blank", "posix ", "mkdir", "review", "a blank after the module"),
        ("blank-sklearn", "sklearn.pipeline", "Pipeline ", "review", "a blank after the name"),
        ("upper", "SKLEARN.pipeline", "Pipeline", "review", "another case"),
        ("surrogate", "sklearn.pipeline\ud800", "Pipeline", "review", "a lone surrogate"),
        ("empty-module", "", "mkdir", "review", "no module"),
        ("empty-name", "sklearn.pipeline", "", "review", "no name"),
        ("combining", "sklearn.pipeline\u0301", "Pipeline", "review", "a combining accent"),
    ]:
        yield Case(
            f"G17-{case}.pkl",
            proto(4) + call(text(module) + text(function) + STACK_GLOBAL, name) + STOP,
            verdict,
            "no",
            why,
        )
    overlong = b"X" + u32(6) + b"po\xc1\xb3ix"
    yield Case(
        "G17-overlong.pkl",
        proto(4) + call(overlong + text("mkdir") + STACK_GLOBAL, name) + STOP,
        "unverifiable",
        "no",
        "overlong UTF-8 in the module",
    )
    yield Case(
        "G17-overlong-line.pkl",
        proto(2) + call(b"cpo\xc1\xb3ix\nmkdir\n", name) + STOP,
        "unverifiable",
        "no",
        "overlong UTF-8 in a GLOBAL",
    )
    yield Case(
        "G17-cr-global.pkl",
        proto(2) + call(b"cposix\r\nmkdir\r\n", name) + STOP,
        "review",
        "no",
        "CR before LF in a GLOBAL",
    )
    for module, cls in [("__main__", "MyTransformer"), ("mypkg.features", "Clean")]:
        yield Case(
            f"G20-{module}.pkl",
            proto(2) + new(glob(module, cls)) + dict_(text("a"), integer(1)) + BUILD + STOP,
            "review",
            "no",
            "a class of one's own",
        )


def gadgets() -> Iterator[Case]:
    """G15 and G16: calls by way of something else."""
    name = text(MARKER)
    partial = glob("functools", "partial")
    bound = value((Op(MKDIR), (MARKER,), {}, None))
    os = call(glob("importlib", "import_module"), text("os"))
    imported = call(glob("builtins", "__import__"), text("os"))
    mapped = call(glob("builtins", "map"), MKDIR, list_(name))
    alias = (
        glob("sys", "modules") + text("sklearn_extra") + glob("joblib.numpy_pickle", "os") + SETITEM
    )
    for case, data, executes, why in [
        (
            "partial",
            new(partial, MKDIR) + bound + BUILD + tuple_() + REDUCE,
            "both",
            "functools.partial filled by BUILD",
        ),
        (
            "partial-harmless",
            new(partial, glob("builtins", "list")) + bound + BUILD + tuple_() + REDUCE,
            "both",
            "functools.partial of list, refilled by BUILD",
        ),
        ("partial-call", call(call(partial, MKDIR, name)), "both", "functools.partial called"),
        (
            "methodcaller",
            call(call(glob("operator", "methodcaller"), text("mkdir"), name), os),
            "both",
            "operator.methodcaller",
        ),
        (
            "getattr",
            call(call(glob("builtins", "getattr"), imported, text("mkdir")), name),
            "both",
            "getattr of an imported module",
        ),
        (
            "map-list",
            call(glob("builtins", "list"), mapped),
            "both",
            "map, run by list",
        ),
        (
            "map-deque",
            call(glob("collections", "deque"), mapped, integer(0)),
            "both",
            "map, run by deque",
        ),
        (
            "map-arguments",
            glob("builtins", "dict") + mapped + REDUCE,
            "joblib",
            "map as arguments, run by REDUCE",
        ),
        (
            "reduce",
            call(glob("functools", "reduce"), MKDIR, list_(name, integer(0o755))),
            "both",
            "functools.reduce",
        ),
        (
            "filter",
            call(glob("builtins", "set"), call(glob("builtins", "filter"), MKDIR, list_(name))),
            "both",
            "filter, run by set",
        ),
    ]:
        yield Case(f"G15-{case}.pkl", proto(2) + data + STOP, "dangerous", executes, why)
    for case, data, executes, why in [
        (
            "sys-modules",
            alias + POP + call(glob("sklearn_extra", "mkdir"), name),
            "both",
            "os under another name in sys.modules",
        ),
        (
            "path-hooks",
            glob("sys", "path_hooks")
            + MKDIR
            + APPEND
            + POP
            + glob("sys", "path")
            + name
            + APPEND
            + POP
            + glob("galley_missing", "x"),
            "both",
            "mkdir as an import hook",
        ),
        (
            "sys-path",
            glob("sys", "path") + MARK + text("nonexistent") + APPENDS,
            "no",
            "APPENDS on sys.path",
        ),
        (
            "environ",
            glob("os", "environ") + text("GALLEY") + text("1") + SETITEM,
            "no",
            "SETITEM on os.environ",
        ),
        (
            "sklearn-list",
            glob("sklearn.datasets", "__all__") + text("x") + APPEND,
            "no",
            "APPEND on a list of sklearn's",
        ),
        (
            "class-attribute",
            glob("sklearn.pipeline", "Pipeline")
            + tuple_(NONE, dict_(text("predict"), MKDIR))
            + BUILD,
            "no",
            "BUILD on a class of sklearn's",
        ),
        (
            "function-build",
            glob("numpy", "mean") + tuple_(NONE, dict_(text("__doc__"), text("x"))) + BUILD,
            "no",
            "BUILD on a function",
        ),
        (
            "dict-dispatch",
            glob("copyreg", "dispatch_table") + glob("builtins", "complex") + MKDIR + SETITEM,
            "no",
            "SETITEM on copyreg.dispatch_table",
        ),
    ]:
        yield Case(
            f"G16-{case}.pkl",
            proto(2) + data + STOP,
            "dangerous",
            executes,
            why,
        )


def library_gadgets() -> Iterator[Case]:
    """G18 and G19: within numpy, scipy, sklearn and joblib."""
    name = text(MARKER)
    mkdir = Op(MKDIR)
    thread = Op(glob("threading", "Thread"))
    popen = Op(glob("subprocess", "Popen"))
    fileio = Op(glob("_io", "FileIO"))
    r = "numpy.random._pickle"
    for case, module, function, args, executes, needs in [
        ("randomstate", r, "__randomstate_ctor", (MARKER, mkdir), "both", ""),
        ("generator", r, "__generator_ctor", (MARKER, mkdir), "both", ""),
        ("bit-generator", r, "__bit_generator_ctor", (thread,), "no", ""),
        ("newobj-kd-tree", "sklearn.neighbors._kd_tree", "newObj", (thread,), "no", "sklearn"),
        ("newobj-metric", "sklearn.metrics._dist_metrics", "newObj", (thread,), "no", "sklearn"),
        ("newobj-ball-tree", "sklearn.neighbors._ball_tree", "newObj", (popen,), "no", "sklearn"),
        (
            "reconstructor-popen",
            "copyreg",
            "_reconstructor",
            (popen, popen, ["mkdir", MARKER]),
            "both",
            "",
        ),
        (
            "reconstructor-fileio",
            "copyreg",
            "_reconstructor",
            (fileio, fileio, "companion.npy"),
            "no",
            "",
        ),
        (
            "reconstructor-thread",
            "copyreg",
            "_reconstructor",
            (thread, Op(glob("builtins", "object")), None),
            "no",
            "",
        ),
        (
            "pyx-loss",
            "sklearn._loss._loss",
            "__pyx_unpickle_CyHalfSquaredError",
            (thread, 0, None),
            "no",
            "sklearn",
        ),
        (
            "pyx-seed-sequence",
            "numpy.random.bit_generator",
            "__pyx_unpickle_SeedSequence",
            (popen, 0, None),
            "no",
            "",
        ),
        ("defaultdict", "collections", "defaultdict", (mkdir,), "no", ""),
        (
            "mareconstruct",
            "numpy.ma.core",
            "_mareconstruct",
            (popen, Op(NDARRAY), (0,), "b"),
            "no",
            "",
        ),
        ("reconstruct", "numpy.core.multiarray", "_reconstruct", (mkdir, (0,), b"b"), "no", ""),
        ("scalar", "numpy.core.multiarray", "scalar", (Op(O8), mkdir), "no", ""),
        (
            "counter",
            "collections",
            "Counter",
            (Op(call(glob("builtins", "map"), MKDIR, list_(name))),),
            "both",
            "",
        ),
        (
            "ordered-dict",
            "collections",
            "OrderedDict",
            (Op(call(glob("builtins", "map"), MKDIR, list_(name))),),
            "both",
            "",
        ),
        ("encode", "_codecs", "encode", ("x", "rot13"), "no", ""),
        (
            "reconstructor-map",
            "copyreg",
            "_reconstructor",
            (
                Op(glob("sklearn.utils._bunch", "Bunch")),
                Op(glob("builtins", "dict")),
                Op(call(glob("builtins", "map"), MKDIR, list_(name))),
            ),
            "both",
            "sklearn",
        ),
    ]:
        verdict = "review" if case == "encode" else "dangerous"
        yield Case(
            f"G18-{case}.pkl",
            proto(2) + call(glob(module, function), *map(value, args)) + STOP,
            verdict,
            executes,
            f"{module} {function} with arguments of the attacker's",
            needs,
        )
    wrapped = new(glob("sklearn.utils.parallel", "_FuncWrapper"))
    wrapped += value({"function": mkdir, "config": {}}) + BUILD
    batched = call(
        glob("joblib.parallel", "BatchedCalls"),
        value([(mkdir, (MARKER,), {})]),
        tuple_(call(glob("joblib._parallel_backends", "SequentialBackend")), integer(1)),
    )
    for case, data, needs in [
        ("func-wrapper", call(wrapped, name), "sklearn"),
        ("batched-calls", call(batched), ""),
    ]:
        yield Case(
            f"G18-{case}.pkl",
            proto(3) + data + STOP,
            "dangerous",
            "both",
            "an object of the library's that is called",
            needs,
        )
    payload = proto(2) + PAYLOAD + STOP
    for case, module, function, args, executes, needs in [
        (
            "loky-fork-exec",
            "joblib.externals.loky.backend.fork_exec",
            "fork_exec",
            (["/usr/bin/python3", "-c", CODE], []),
            "both",
            "joblib.externals.loky.backend.fork_exec",
        ),
        (
            "run-script",
            "sklearn.utils._testing",
            "assert_run_python_script",
            (CODE,),
            "no",
            "sklearn",
        ),
        ("joblib-load", "joblib", "load", ("companion.joblib",), "both", ""),
        (
            "joblib-numpy-pickle-load",
            "joblib.numpy_pickle",
            "load",
            ("companion.joblib",),
            "both",
            "",
        ),
        (
            "cloudpickle-loads",
            "joblib.externals.cloudpickle.cloudpickle",
            "loads",
            (payload,),
            "both",
            "joblib.externals.cloudpickle.cloudpickle",
        ),
        ("joblib-pickle", "joblib.numpy_pickle", "pickle", (), "no", ""),
        ("numpy-load", "numpy", "load", ("companion.npy", None, True), "both", ""),
        (
            "numpy-npyio",
            "numpy.lib.npyio",
            "load",
            ("companion.npy", None, True),
            "both",
            "numpy<2",
        ),
        ("runstring", "numpy.testing._private.utils", "runstring", (CODE, {}), "both", ""),
        ("getlincoef", "numpy.f2py.crackfortran", "getlincoef", (EXPRESSION, {}), "both", ""),
        ("memory", "joblib.memory", "Memory", (MARKER,), "both", ""),
        ("memmap", "numpy", "memmap", (MARKER, "u1", "w+", 0, 1), "both", ""),
        ("savetxt", "numpy", "savetxt", (MARKER, []), "both", ""),
        ("save", "numpy", "save", (MARKER, []), "no", ""),
        ("fromfile", "numpy", "fromfile", ("companion.npy",), "no", ""),
        ("loadtxt", "numpy", "loadtxt", ("companion.npy",), "no", ""),
        ("data-home", "sklearn.datasets._base", "get_data_home", (MARKER,), "both", "sklearn"),
        ("sklearn-datasets", "sklearn.datasets", "get_data_home", (MARKER,), "both", "sklearn"),
        ("joblib-parallel-exec", "joblib.parallel", "delayed", (mkdir,), "no", ""),
        ("store-backend", "joblib._store_backends", "mkdirp", (MARKER,), "both", ""),
        ("disk-mkdirp", "joblib.disk", "mkdirp", (MARKER,), "both", ""),
        ("disk-delete", "joblib.disk", "delete_folder", ("nonexistent",), "no", ""),
        (
            "exec-mod",
            "numpy.distutils.misc_util",
            "exec_mod_from_location",
            ("companion", "companion.py"),
            "both",
            "numpy.distutils",
        ),
        (
            "exec-command",
            "numpy.distutils.exec_command",
            "exec_command",
            (COMMAND,),
            "both",
            "numpy.distutils",
        ),
        ("scipy-io", "scipy.io", "loadmat", ("companion.npy",), "no", ""),
        (
            "compat",
            "joblib.numpy_pickle_compat",
            "load_compatibility",
            ("companion.npy",),
            "no",
            "",
        ),
    ]:
        yield Case(
            f"G19-{case}.pkl",
            proto(3) + call(glob(module, function), *map(value, args)) + STOP,
            "dangerous",
            executes,
            f"{module} {function}",
            needs,
        )
    yield Case(
        "G19-memmap-newobj.pkl",
        proto(3) + new(glob("numpy", "memmap"), *map(value, (MARKER, "u1", "w+", 0, 1))) + STOP,
        "dangerous",
        "both",
        "numpy memmap by NEWOBJ",
    )


# Archives. The bytes of a 7z archive's header are enough to look like one.

SEVENZIP = b"7z\xbc\xaf\x27\x1c\x00\x04" + bytes(24)


def archive(members: list[tuple[str, bytes, dict[str, int]]]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as z:
        for name, data, attributes in members:
            info = zipfile.ZipInfo(name)
            for key, n in attributes.items():
                setattr(info, key, n)
            z.writestr(info, data)
    return out.getvalue()


def container_cases() -> Iterator[Case]:
    clean = proto(2) + EMPTY_LIST + STOP
    payload = proto(2) + PAYLOAD + STOP
    for case, data, verdict, executes, why, needs in [
        (
            "R1-gzip-two",
            gzip_member(clean) + gzip_member(payload),
            "unverifiable",
            "crash",
            "two gzip members",
            "",
        ),
        (
            "R1-gzip-split",
            gzip_member(payload[:10]) + gzip_member(payload[10:]),
            "unverifiable",
            "crash",
            "a payload across two gzip members",
            "",
        ),
        (
            "R1-gzip-junk",
            gzip_member(clean) + b"junkjunk",
            "unverifiable",
            "crash",
            "gzip, then junk",
            "",
        ),
        (
            "R1-zlib-junk",
            zlib.compress(clean) + b"junkjunk",
            "unverifiable",
            "crash",
            "zlib, then junk",
            "",
        ),
        (
            "R1-zlib-two",
            zlib.compress(clean) + zlib.compress(payload),
            "unverifiable",
            "crash",
            "two zlib streams",
            "",
        ),
        ("R2-xz-two", xz(clean) + xz(payload), "unverifiable", "no", "two xz streams", ""),
        (
            "R2-xz-split",
            xz(payload[:10]) + xz(payload[10:]),
            "unverifiable",
            "joblib",
            "a payload across two xz streams",
            "",
        ),
        (
            "R2-xz-lzma",
            xz(proto(2)) + lzma_alone(payload),
            "unverifiable",
            "joblib",
            "xz, then an LZMA stream with the payload",
            "",
        ),
        (
            "R2-lzma-two",
            lzma_alone(proto(2)) + lzma_alone(payload),
            "unverifiable",
            "joblib",
            "two LZMA streams",
            "",
        ),
        ("R2-xz-junk", xz(clean) + b"junkjunk", "unverifiable", "no", "xz, then junk", ""),
        ("R2-xz-padding", xz(clean) + bytes(8), "review", "no", "xz, then padding", ""),
        (
            "R2-bz2-two",
            bz2.compress(proto(2)) + bz2.compress(payload),
            "unverifiable",
            "joblib",
            "two bzip2 streams",
            "",
        ),
        (
            "R2-bz2-junk",
            bz2.compress(clean) + b"junkjunk",
            "unverifiable",
            "no",
            "bzip2, then junk",
            "",
        ),
        (
            "R2-lz4-two",
            lz4_frame(proto(2)) + lz4_frame(payload),
            "unverifiable",
            "joblib",
            "two lz4 frames",
            "lz4",
        ),
        (
            "R2-lz4-junk",
            lz4_frame(clean) + b"junkjunk",
            "unverifiable",
            "no",
            "lz4, then junk",
            "lz4",
        ),
        (
            "R2-bz2-empty-first",
            bz2.compress(b"") + bz2.compress(payload),
            "unverifiable",
            "joblib",
            "an empty bzip2 stream first",
            "",
        ),
        (
            "R3-zeros",
            zlib.compress(zeros(30_000_000), 9),
            "pass",
            "no",
            "30 MB of zeros in an array",
            "",
        ),
    ]:
        yield Case(f"{case}.joblib", data, verdict, executes, why, needs)
    lengths = [1 << 31, 1 << 33, 1 << 62, 1 << 63, (1 << 64) - 1]
    for case, opcode, size in [
        ("binbytes", b"B", 4),
        ("binunicode", b"X", 4),
        ("binstring", b"T", 4),
        ("long4", b"\x8b", 4),
        ("binbytes8", b"\x8e", 8),
        ("binunicode8", b"\x8d", 8),
        ("bytearray8", b"\x96", 8),
        ("frame", b"\x95", 8),
    ]:
        for n in lengths if size == 8 else [(1 << 31) - 1, 1 << 31, (1 << 32) - 1]:
            yield Case(
                f"R4-{case}-{n:x}.pkl",
                proto(5) + opcode + n.to_bytes(size, "little") + b"abc" + STOP,
                "unverifiable",
                "no",
                "a declared length that the file does not have",
            )
    deep = EMPTY_TUPLE + (put(0) + get(0) + b"\x86") * 200
    for case, data, verdict, executes, why in [
        (
            "memo-index",
            proto(2) + NONE + b"r" + u32(0xFFFFFFFF) + STOP,
            "unverifiable",
            "no",
            "memo index 0xffffffff",
        ),
        (
            "memo-index-payload",
            proto(2) + NONE + b"r" + u32(0xFFFFFFFF) + PAYLOAD + STOP,
            "unverifiable",
            "joblib",
            "memo index 0xffffffff, then a payload",
        ),
        (
            "memo-index-text",
            b"Np99999999999999999999\n" + STOP,
            "unverifiable",
            "no",
            "a memo index of 20 digits",
        ),
        (
            "cycle",
            proto(2) + EMPTY_LIST + put(0) + get(0) + APPEND + STOP,
            "pass",
            "no",
            "a list that contains itself",
        ),
        (
            "cycle-dict",
            proto(2) + EMPTY_DICT + put(0) + text("a") + get(0) + SETITEM + STOP,
            "pass",
            "no",
            "a dict that contains itself",
        ),
        (
            "doubling",
            proto(2) + deep + STOP,
            "pass",
            "no",
            "200 tuples, each holding the one before twice",
        ),
        (
            "nested-tuples",
            proto(2) + EMPTY_TUPLE + b"\x85" * 20_000 + STOP,
            "pass",
            "no",
            "20000 tuples in one another",
        ),
        ("long-int", b"L" + b"9" * 6000 + b"L\n" + STOP, "pass", "no", "an integer of 6000 digits"),
    ]:
        yield Case(f"R5-{case}.pkl", data, verdict, executes, why)

    for case, data, verdict, executes, why in [
        (
            "gzip-name",
            gzip_member(clean, 8, b"model.pkl\0"),
            "review",
            "no",
            "gzip with a file name",
        ),
        (
            "gzip-comment",
            gzip_member(clean, 16, b"a comment\0"),
            "review",
            "no",
            "gzip with a comment",
        ),
        (
            "gzip-extra",
            gzip_member(clean, 4, b"\x04\x00abcd"),
            "review",
            "no",
            "gzip with an extra field",
        ),
        ("gzip-reserved", gzip_member(clean, 0xE0), "review", "no", "gzip with reserved flags"),
        ("gzip-crc", gzip_member(clean, crc=1), "review", "no", "gzip with a wrong CRC"),
        ("gzip-size", gzip_member(clean, size=1), "review", "no", "gzip with a wrong size"),
        ("gzip-truncated", gzip_member(clean)[:-6], "review", "no", "gzip that ends after STOP"),
        (
            "gzip-name-payload",
            gzip_member(payload, 8, b"model.pkl\0"),
            "dangerous",
            "joblib",
            "gzip with a file name, and a payload",
        ),
        (
            "gzip-crc-payload",
            gzip_member(payload, crc=1),
            "dangerous",
            "no",
            "a payload in gzip with a wrong CRC",
        ),
        (
            "gzip-crc-large",
            gzip_member(payload + bytes(1_500_000) + noise(30_000), crc=1),
            "dangerous",
            "joblib",
            "the same, with the CRC far behind STOP",
        ),
        (
            "gzip-truncated-payload",
            gzip_member(payload)[:-6],
            "dangerous",
            "joblib",
            "a payload in gzip that ends after STOP",
        ),
        (
            "zlib-adler",
            zlib.compress(clean)[:-4] + bytes(4),
            "review",
            "no",
            "zlib with a wrong checksum",
        ),
        (
            "zlib-truncated-payload",
            zlib.compress(payload)[:-4],
            "dangerous",
            "joblib",
            "a payload in zlib that ends after STOP",
        ),
        (
            "zlib-adler-payload",
            zlib.compress(payload)[:-4] + bytes(4),
            "dangerous",
            "no",
            "a payload in zlib with a wrong checksum",
        ),
    ]:
        yield Case(f"R7-{case}.joblib", data, verdict, executes, why)
    for case, data, why in [
        ("empty", b"", "an empty file"),
        ("one-byte", b"\x80", "one byte"),
        ("only-stop", b"\x80\x04.", "PROTO and STOP"),
        ("zlib", b"\x78", "zlib's prefix"),
        ("zlib-2", b"\x78\x9c", "zlib's header"),
        ("gzip", b"\x1f\x8b", "gzip's prefix"),
        ("bz2", b"BZ", "bzip2's prefix"),
        ("lzma", b"\x5d\x00", "LZMA's prefix"),
        ("xz", b"\xfd7zXZ", "xz's prefix"),
        ("lz4", b"\x04\x22\x4d\x18", "lz4's prefix"),
        ("zf", b"ZF0x1", "the header of joblib 0.9"),
        ("zip", archive([("a.txt", b"a", {})]), "a zip"),
        ("7z", SEVENZIP, "a 7z archive"),
        ("npy", npy("<f8", b""), "an array of numpy's own format"),
    ]:
        yield Case(f"R8-{case}.joblib", data, "error", "no", why)
    yield Case(
        "R8-zf-payload.joblib",
        zfile(payload),
        "unverifiable",
        "joblib",
        "a payload in the container of joblib 0.9",
    )


def noise(n: int) -> bytes:
    """Bytes that do not compress."""
    blocks = (hashlib.sha256(u32(i)).digest() for i in range(n // 32))
    return b"".join(blocks)


def zeros(n: int) -> bytes:
    before = OPEN + wrapper(kind=U1, shape=tuple_(integer(n)), align=integer(16))
    return padded(before, bytes(n)) + CLOSE


def zfile(data: bytes) -> bytes:
    return b"ZF" + hex(len(data)).ljust(len(hex(1 << 64))).encode() + zlib.compress(data)


def npy(descr: str, data: bytes) -> bytes:
    shape = (1,) if data else (0,)
    header = f"{{'descr': {descr!r}, 'fortran_order': False, 'shape': {shape}, }}"
    header = header.ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode() + data


def companions() -> Iterator[Case]:
    payload = proto(2) + PAYLOAD + STOP
    for name, data, verdict, executes in [
        ("companion.joblib", payload, "dangerous", "both"),
        ("companion.npy", npy("|O", nested(PAYLOAD + POP)), "error", "no"),
        ("companion.npy.z", zfile(bytes(8)), "unverifiable", "no"),
        ("companion.py", b'import os\n\nos.mkdir("galley-marker")\n', "error", "no"),
        ("companion.pth", CODE.encode() + b"\n", "error", "no"),
    ]:
        yield Case(name, data, verdict, executes, "read by other cases")


# B: ways past other scanners that have been published.

SELF = Op(new(glob("joblib.numpy_pickle", "NumpyArrayWrapper")))


def made(module: str, name: str, *args: object) -> Op:
    """What a call returns, as an argument of another."""
    return Op(call(glob(module, name), *map(value, args)))


# Module, name, arguments, what executes, and what that needs. Names that do not
# execute need a terminal, a network or another system, or are not installed.
CALLS = [
    ("os", "popen", (COMMAND,), "both", ""),
    ("nt", "system", (COMMAND,), "no", ""),
    ("subprocess", "check_output", (["mkdir", MARKER],), "both", ""),
    ("subprocess", "getoutput", (COMMAND,), "both", ""),
    ("pty", "spawn", (["mkdir", MARKER],), "both", ""),
    ("pip", "main", (["--version"],), "no", ""),
    ("pip._internal", "main", (["--version"],), "no", ""),
    ("ensurepip", "_run_pip", (["--version"],), "no", ""),
    ("venv", "create", (MARKER,), "both", "ensurepip"),
    ("setuptools", "setup", (), "no", ""),
    ("timeit", "timeit", (CODE, "pass", Op(glob("time", "time")), 1), "both", ""),
    ("cProfile", "run", (CODE,), "both", ""),
    ("cProfile", "runctx", (CODE, {}, {}), "both", ""),
    ("profile", "run", (CODE,), "both", ""),
    ("profile", "runctx", (CODE, {}, {}), "both", ""),
    ("profile", "Profile.runctx", (made("profile", "Profile"), CODE, {}, {}), "both", ""),
    ("cProfile", "Profile.run", (made("cProfile", "Profile"), CODE), "both", ""),
    ("trace", "Trace.run", (made("trace", "Trace"), CODE), "both", ""),
    ("trace", "Trace.runctx", (made("trace", "Trace"), CODE, {}, {}), "both", ""),
    ("bdb", "Bdb.run", (made("bdb", "Bdb"), CODE), "both", ""),
    ("pdb", "run", (CODE,), "no", ""),
    ("doctest", "debug_script", (CODE, True), "both", ""),
    (
        "code",
        "InteractiveInterpreter.runcode",
        (made("code", "InteractiveInterpreter"), CODE),
        "both",
        "",
    ),
    (
        "code",
        "InteractiveInterpreter.runsource",
        (made("code", "InteractiveInterpreter"), CODE),
        "both",
        "",
    ),
    ("code", "interact", ("",), "no", ""),
    ("codeop", "compile_command", ("1",), "no", ""),
    ("runpy", "run_path", ("companion.py",), "both", ""),
    ("runpy", "_run_code", (CODE, {}), "both", ""),
    ("runpy", "run_module", ("companion",), "both", ""),
    ("builtins", "exec", (CODE,), "both", ""),
    ("builtins", "compile", (CODE, "a", "exec"), "no", ""),
    ("builtins", "open", (MARKER, "w"), "both", ""),
    ("builtins", "breakpoint", (), "no", ""),
    ("importlib", "import_module", ("os",), "no", ""),
    ("importlib._bootstrap_external", "SourceFileLoader.exec_module", (SELF, None), "no", ""),
    ("imp", "load_source", ("companion", "companion.py"), "both", "python<3.12"),
    ("zipimport", "zipimporter", ("companion.npy",), "no", ""),
    ("site", "addpackage", (".", "companion.pth", None), "both", ""),
    ("ast", "literal_eval", ("1",), "no", ""),
    ("inspect", "getattr_static", (MARKER, "__class__"), "no", ""),
    ("gc", "get_objects", (), "no", ""),
    ("types", "CodeType", (), "no", ""),
    ("types", "FunctionType", (None, {}), "no", ""),
    ("marshal", "loads", (b"N",), "no", ""),
    ("ctypes", "pythonapi.PyRun_SimpleString", (CODE.encode(),), "both", ""),
    ("ctypes", "CDLL", (None,), "no", ""),
    ("ctypes.util", "find_library", ("c",), "no", ""),
    ("_ctypes", "dlopen", (None, 0), "no", ""),
    ("pydoc", "locate", ("os.mkdir",), "no", ""),
    ("pydoc", "pipepager", ("", COMMAND), "both", ""),
    ("pydoc", "tempfilepager", ("", COMMAND), "both", ""),
    ("_pyrepl.pager", "pipe_pager", ("", COMMAND), "both", "python>=3.13"),
    ("uuid", "_get_command_stdout", ("mkdir", MARKER), "both", ""),
    ("imaplib", "IMAP4_stream", (COMMAND,), "both", ""),
    ("_osx_support", "_read_output", (COMMAND,), "both", ""),
    ("_osx_support", "_find_build_tool", ("cc",), "no", ""),
    ("_aix_support", "_read_cmd_output", (COMMAND,), "no", ""),
    (
        "test.support.script_helper",
        "assert_python_ok",
        ("-c", CODE),
        "both",
        "test.support.script_helper",
    ),
    ("unittest", "main", (None,), "no", ""),
    ("distutils.file_util", "write_file", (MARKER, []), "both", "distutils.file_util"),
    ("distutils.dir_util", "mkpath", (MARKER,), "both", "distutils.file_util"),
    ("distutils.spawn", "spawn", (["mkdir", MARKER],), "both", "distutils.file_util"),
    (
        "lib2to3.pgen2.grammar",
        "Grammar.load",
        (made("lib2to3.pgen2.grammar", "Grammar"), "companion.joblib"),
        "both",
        "lib2to3.pgen2.grammar",
    ),
    ("lib2to3.pgen2.pgen", "ParserGenerator.make_label", (SELF, SELF, "'x'"), "no", ""),
    ("idlelib.run", "Executive.runcode", (SELF, CODE), "no", ""),
    ("idlelib.pyshell", "ModifiedInterpreter.runcode", (SELF, CODE), "no", ""),
    ("idlelib.pyshell", "ModifiedInterpreter.runcommand", (SELF, CODE), "no", ""),
    ("idlelib.autocomplete", "AutoComplete.get_entity", (SELF, EXPRESSION), "both", "idlelib"),
    ("idlelib.autocomplete", "AutoComplete.fetch_completions", (SELF, EXPRESSION, 0), "no", ""),
    ("idlelib.calltip", "get_entity", (EXPRESSION,), "both", "idlelib"),
    ("idlelib.calltip", "Calltip.fetch_tip", (SELF, EXPRESSION), "both", "idlelib"),
    ("idlelib.debugobj", "ObjectTreeItem.SetText", (SELF, CODE), "no", ""),
    (
        "multiprocessing.util",
        "spawnv_passfds",
        (b"/bin/mkdir", [b"mkdir", MARKER.encode()], []),
        "both",
        "",
    ),
    (
        "multiprocessing.process",
        "BaseProcess.run",
        (made("multiprocessing.context", "Process", None, Op(MKDIR), None, (MARKER,)),),
        "both",
        "",
    ),
    ("multiprocessing.context", "Process", (None, Op(MKDIR), None, (MARKER,)), "no", ""),
    (
        "_xxsubinterpreters",
        "run_string",
        (made("_xxsubinterpreters", "create"), CODE),
        "both",
        "python<3.13",
    ),
    ("_interpreters", "exec", (made("_interpreters", "create"), CODE), "both", "python>=3.13"),
    ("asyncio", "create_subprocess_shell", (COMMAND,), "no", ""),
    ("asyncio.subprocess", "create_subprocess_exec", ("mkdir", MARKER), "no", ""),
    ("platform", "popen", (COMMAND,), "no", ""),
    ("webbrowser", "open", ("about:blank",), "no", ""),
    ("webbrowser", "GenericBrowser.open", (SELF, "about:blank"), "no", ""),
    ("operator", "methodcaller", ("mkdir", MARKER), "no", ""),
    ("threading", "Timer", (0, Op(MKDIR)), "no", ""),
    ("atexit", "register", (Op(MKDIR), MARKER), "both", ""),
    ("signal", "signal", (14, Op(MKDIR)), "no", ""),
    ("weakref", "finalize", (SELF, Op(MKDIR), MARKER), "both", ""),
    (
        "threading",
        "Thread.run",
        (made("threading", "Thread", None, Op(MKDIR), None, (MARKER,)),),
        "both",
        "",
    ),
    (
        "concurrent.futures.thread",
        "_WorkItem.run",
        (
            made(
                "concurrent.futures.thread",
                "_WorkItem",
                made("concurrent.futures._base", "Future"),
                Op(MKDIR),
                (MARKER,),
                {},
            ),
        ),
        "both",
        "python<3.14",
    ),
    ("contextlib", "ExitStack", (), "no", ""),
    ("logging", "FileHandler", (MARKER,), "both", ""),
    ("logging.config", "listen", (0,), "no", ""),
    ("logging.config", "_resolve", ("os.mkdir",), "no", ""),
    ("io", "FileIO", (MARKER, "w"), "both", ""),
    ("_io", "FileIO", (MARKER, "w"), "both", ""),
    ("io", "open", (MARKER, "w"), "both", ""),
    ("io", "open_code", ("companion.py",), "no", ""),
    ("pathlib", "Path.mkdir", (made("pathlib", "Path", MARKER),), "both", ""),
    ("pathlib", "Path.write_text", (made("pathlib", "Path", MARKER), ""), "both", ""),
    ("shutil", "copyfile", ("companion.py", MARKER), "both", ""),
    ("tempfile", "mkdtemp", ("", "galley-"), "no", ""),
    ("linecache", "getlines", ("companion.py",), "no", ""),
    ("glob", "glob", ("*",), "no", ""),
    ("tarfile", "open", (MARKER, "w"), "both", ""),
    ("zipfile", "ZipFile", (MARKER, "w"), "both", ""),
    ("sqlite3", "connect", (MARKER,), "both", "sqlite3"),
    ("dbm.dumb", "open", (MARKER,), "no", ""),
    ("urllib.request", "urlopen", ("data:,x",), "no", ""),
    ("urllib.request", "urlretrieve", ("data:,x", MARKER), "both", ""),
    ("ssl", "get_server_certificate", (("localhost", 9),), "no", ""),
    ("socket", "create_connection", (("localhost", 9),), "no", ""),
    ("http.client", "HTTPSConnection", ("localhost",), "no", ""),
    ("requests", "get", ("http://localhost:9",), "no", ""),
    ("ftplib", "FTP", ("",), "no", ""),
    ("smtplib", "SMTP", ("",), "no", ""),
    ("xmlrpc.client", "ServerProxy", ("http://localhost:9",), "no", ""),
    ("pickle", "loads", (b"cposix\nmkdir\n(V" + MARKER.encode() + b"\ntR.",), "both", ""),
    ("_pickle", "loads", (b"cposix\nmkdir\n(V" + MARKER.encode() + b"\ntR.",), "both", ""),
    ("shelve", "open", (MARKER,), "no", ""),
    ("dill", "loads", (b"N.",), "no", ""),
    ("dill._dill", "_import_module", ("os.mkdir",), "no", ""),
    (
        "cloudpickle",
        "loads",
        (b"cposix\nmkdir\n(V" + MARKER.encode() + b"\ntR.",),
        "both",
        "cloudpickle",
    ),
    ("cloudpickle.cloudpickle", "subimport", ("os",), "no", ""),
    ("cloudpickle.cloudpickle", "_builtin_type", ("CodeType",), "no", ""),
    ("pandas", "read_pickle", ("companion.joblib",), "both", "pandas"),
    ("pandas.io.pickle", "read_pickle", ("companion.joblib",), "both", "pandas"),
    ("pandas.core.computation.eval", "eval", ("1",), "no", "pandas"),
    ("torch", "load", ("companion.joblib",), "no", ""),
    ("torch.storage", "_load_from_bytes", (b"N.",), "no", ""),
    ("torch.hub", "load", ("a/b", "c"), "no", ""),
    ("torch.jit.unsupported_tensor_ops", "execWrapper", (CODE, {}, {}), "no", ""),
    ("torch.utils._config_module", "ConfigModule.load_config", (SELF, b"N."), "no", ""),
    ("torch.utils._config_module", "load_config", (b"N.",), "no", ""),
    ("torch.utils.bottleneck.__main__", "run_cprofile", (CODE, {}), "no", ""),
    ("torch.utils.bottleneck.__main__", "run_autograd_prof", (CODE, {}), "no", ""),
    ("torch.utils.collect_env", "run", (COMMAND,), "no", ""),
    ("torch.utils.data.datapipes.utils.decoder", "basichandlers", ("pickle", b"N."), "no", ""),
    ("torch._dynamo.guards", "GuardBuilder.get", (SELF, EXPRESSION), "no", ""),
    (
        "torch.fx.experimental.symbolic_shapes",
        "ShapeEnv.evaluate_guards_expression",
        (SELF, CODE, []),
        "no",
        "",
    ),
    ("torch.serialization", "load", ("companion.joblib",), "no", ""),
    ("picklescan.scanner", "scan_file_path", ("companion.joblib",), "no", ""),
    ("modelscan.modelscan", "ModelScan", (), "no", ""),
    ("fickling.hook", "activate_safe_ml_environment", (), "no", ""),
    ("numpy.f2py", "compile", ("",), "no", ""),
    ("numpy.f2py.crackfortran", "myeval", (EXPRESSION, {}, {}), "both", ""),
    ("numpy.f2py.crackfortran", "param_eval", (EXPRESSION, {}, {}), "both", "numpy>=2"),
    ("numpy.f2py.crackfortran", "_eval_length", (EXPRESSION, {}), "both", ""),
    ("numpy.f2py.diagnose", "run_command", (COMMAND,), "both", "numpy<2"),
    ("numpy.testing", "rundocs", ("companion.py",), "both", ""),
    ("numpy.ctypeslib", "load_library", ("nonexistent", "."), "no", ""),
    ("numpy", "genfromtxt", ("companion.npy",), "no", ""),
    ("_posixsubprocess", "fork_exec", (), "no", ""),
    ("mmap", "mmap", (-1, 1), "no", ""),
    ("fileinput", "input", ("companion.py",), "no", ""),
    ("telnetlib", "Telnet", (), "no", ""),
    ("nntplib", "NNTP", ("",), "no", ""),
    ("poplib", "POP3", ("",), "no", ""),
    ("socketserver", "TCPServer", (("localhost", 0), None), "no", ""),
    ("cffi", "FFI", (), "no", ""),
    ("jsonpickle", "decode", ("null",), "no", ""),
    ("yaml", "unsafe_load", ("a",), "no", ""),
    ("sys", "exit", (), "no", ""),
    ("sys", "settrace", (Op(MKDIR),), "no", ""),
    ("sys", "addaudithook", (Op(glob("builtins", "len")),), "no", ""),
]

# Third-party modules of which no list needs to know.
UNKNOWN = ("torch.", "requests", "jsonpickle", "yaml")
KNOWN = ("torch.storage", "torch.load", "jsonpickle", "yaml", "requests")


def bypass_cases() -> Iterator[Case]:
    for module, name, args, executes, needs in CALLS:
        known = not module.startswith(UNKNOWN) or module in KNOWN
        yield Case(
            f"B-{module}-{name}.pkl",
            proto(4) + call(glob(module, name), *map(value, args)) + STOP,
            "dangerous" if known else "review",
            executes,
            f"{module} {name}",
            needs,
        )
    name = text(MARKER)
    resolve = glob("pkgutil", "resolve_name")
    os = call(glob("importlib", "import_module"), text("os"))
    locate = call(glob("pydoc", "locate"), text("os"))
    marshalled = bytes.fromhex(
        "630000000000000000000000000300000000000000f32e0000009700640064016c005a00020065006a01"
        "00000000000000006402a6010000ab0100000000000000000100640153002903e9000000004e7a0d6761"
        "6c6c65792d6d61726b65722902da026f73da056d6b646972a900f300000000da0178fa083c6d6f64756c"
        "653e7207000000010000007325000000f003010101d80009800980098009883888328c38904fd10b24d4"
        "0b24d00b24d00b24d00b247205000000"
    )
    function = call(
        glob("types", "FunctionType"),
        call(glob("marshal", "loads"), binary(marshalled)),
        call(glob("builtins", "globals")),
    )
    shell = made("code", "InteractiveInterpreter").code
    for case, data, executes, needs, why in [
        (
            "resolve-name",
            call(call(resolve, text("os:mkdir")), name),
            "both",
            "",
            "pkgutil.resolve_name",
        ),
        (
            "import-attrgetter",
            call(call(call(glob("_operator", "attrgetter"), text("mkdir")), os), name),
            "both",
            "",
            "_operator.attrgetter of an import",
        ),
        (
            "locate-methodcaller",
            call(call(glob("_operator", "methodcaller"), text("mkdir"), name), locate),
            "both",
            "",
            "methodcaller on pydoc.locate",
        ),
        (
            "locate-call",
            call(call(glob("pydoc", "locate"), text("os.mkdir")), name),
            "both",
            "",
            "pydoc.locate called",
        ),
        ("marshal-function", call(function), "both", "python==3.11", "a function from marshal"),
        (
            "logging-resolve",
            call(call(glob("logging.config", "_resolve"), text("os.mkdir")), name),
            "both",
            "",
            "logging.config._resolve",
        ),
        (
            "runcode-obj",
            MARK + glob("code", "InteractiveInterpreter.runcode") + shell + text(CODE) + b"o",
            "both",
            "",
            "a method by OBJ",
        ),
        (
            "ctypes-posix",
            call(stack_global("ctypes", "pythonapi.PyRun_SimpleString"), binary(CODE.encode()))
            + POP
            + NONE,
            "both",
            "",
            "ctypes' own handle on Python",
        ),
        (
            "torch-magic",
            call(glob("builtins", "eval"), text(f"[{EXPRESSION}, 0x1950a86a20f9469cfc6c][1]")),
            "both",
            "",
            "torch's magic number by eval",
        ),
        (
            "unused-variable",
            new(glob("numpy", "poly1d")) + dict_(text("a"), PAYLOAD) + BUILD,
            "both",
            "",
            "a result that serves as a state",
        ),
        (
            "allowed-first",
            glob("collections", "OrderedDict") + EMPTY_TUPLE + REDUCE + POP + PAYLOAD,
            "both",
            "",
            "a harmless call first",
        ),
        (
            "memo-confusion",
            integer(1)
            + put(0)
            + POP
            + text("posix")
            + put(0)
            + POP
            + get(0)
            + text("mkdir")
            + STACK_GLOBAL
            + tuple_(name)
            + REDUCE,
            "both",
            "",
            "a memo slot of two types",
        ),
        (
            "memo-global",
            MKDIR + put(0) + POP + text("a") + put(1) + POP + get(0) + tuple_(name) + REDUCE,
            "both",
            "",
            "a global from the memo",
        ),
        ("eop-int", b"I0x10\n0" + PAYLOAD, "both", "", "a number that pickletools rejects: 0x10"),
        (
            "eop-underscore",
            b"I1_0\n0" + PAYLOAD,
            "both",
            "",
            "a number that pickletools may reject: 1_0",
        ),
        ("eop-put", NONE + b"p +7\n0" + b"g7\n0" + PAYLOAD, "both", "", "a memo index with a sign"),
        ("eop-long", b"L 12 \n0" + PAYLOAD, "both", "", "a LONG with blanks and without L"),
        ("eop-float", b"F1e999\n0" + PAYLOAD, "joblib", "", "a FLOAT that is infinite"),
        ("eop-float-blanks", b"F 1_0.5 \n0" + PAYLOAD, "joblib", "", "a FLOAT with blanks"),
        ("eop-pop-mark", MARK + MARK + POP + POP + PAYLOAD, "both", "", "POP on marks"),
        ("eop-frame", frame(b"") + PAYLOAD, "both", "", "an empty frame"),
        ("eop-stop", PAYLOAD + NONE + MARK + text("a"), "both", "", "a mark left at STOP"),
        (
            "eop-long1",
            b"\x8a\x00" + POP + b"\x8b" + u32(0) + POP + PAYLOAD,
            "both",
            "",
            "LONG1 and LONG4 of no bytes",
        ),
        (
            "fileio-write",
            call(glob("_io", "FileIO"), name, text("w")) + POP + NONE,
            "both",
            "",
            "_io.FileIO, popped",
        ),
    ]:
        yield Case(f"B-{case}.pkl", proto(4) + data + STOP, "dangerous", executes, why, needs)
    payload = proto(2) + PAYLOAD + STOP
    for extension in ["txt", "bin", "pt", "json", "onnx"]:
        yield Case(
            f"B-extension.{extension}",
            payload,
            "dangerous",
            "both",
            "a pickle under another extension",
        )
    renamed = archive([("data.pkl", payload, {})])
    for case, data, why in [
        (
            "name",
            renamed.replace(b"data.pkl", b"datap.kl", 1),
            "a zip whose two names of a member differ",
        ),
        ("flags", flagged_zip(renamed), "a zip whose member seems encrypted"),
        ("crc", renamed.replace(u32(zlib.crc32(payload)), u32(0)), "a zip with a wrong CRC"),
    ]:
        yield Case(f"B-zip-{case}.pt", data, "error", "no", why)


def flagged_zip(data: bytes) -> bytes:
    """Set a flag bit in the central directory alone."""
    at = data.index(b"PK\x01\x02") + 8
    return data[:at] + u8(data[at] | 1) + data[at + 1 :]


# S: objects with a state of the attacker's, and pickles that look like something
# else.

FOUR = tuple_(integer(4))
HIDDEN = swallow(32, PAYLOAD) + CLOSE  # what four elements of 8 bytes are followed by
ORDERED = call(glob("collections", "OrderedDict"))
SCALER = new(glob("sklearn.preprocessing._data", "StandardScaler"))
TEMPLATE = "_parse_arg_template"  # scipy's distributions execute it
GENUINE = """
def _parse_args(self,  loc=0, scale=1):
    return (), loc, scale

def _parse_args_rvs(self,  loc=0, scale=1, size=None):
    return self._argcheck_rvs( loc, scale, size=size)

def _parse_args_stats(self,  loc=0, scale=1, moments='mv'):
    return (), loc, scale, moments
"""


def filled(mapping: bytes, items: bytes) -> bytes:
    """A mapping that is given what is in a dict_."""
    return mapping + items.removeprefix(EMPTY_DICT)


def wrapping(mapping: bytes, more: bytes = b"") -> bytes:
    """A state that makes a wrapper of what it is for: its class first, then shape."""
    items = text("__class__") + WRAPPER + more
    return mapping + MARK + items + state(shape=FOUR).removeprefix(EMPTY_DICT + MARK)


def memmap(*args: object) -> bytes:
    """A functools.partial that creates or truncates a file."""
    function = Op(glob("numpy", "memmap"))
    bound = (function, (MARKER, "u1", "w+", *args), {}, None)
    return call(glob("functools", "partial"), function.code) + value(bound) + BUILD


def state_cases() -> Iterator[Case]:
    code = text(CODE)
    # For scipy a dict in a tuple is its two keys: a name and what it gets.
    pair = dict_(text(TEMPLATE), text(GENUINE), code, NONE)
    other = dict_(text("_a"), NONE, text("_b"), NONE)
    item = list_(text(TEMPLATE), code)
    for case, cls, data, why in [
        ("pair", "norm_gen", tuple_(pair, filled(ORDERED, other)), "a dict and an OrderedDict"),
        ("dicts", "norm_gen", tuple_(pair, other), "two dicts"),
        ("lists", "norm_gen", tuple_(item, list_(text("_a"), text("_b"))), "two lists"),
        ("one", "norm_gen", tuple_(item), "a tuple of one item"),
        ("list", "norm_gen", list_(tuple_(text(TEMPLATE), code)), "a list of items"),
        ("ordered", "norm_gen", filled(ORDERED, dict_(text(TEMPLATE), code)), "an OrderedDict"),
        ("discrete", "binom_gen", tuple_(pair, other), "two dicts, for a discrete one"),
    ]:
        module = f"scipy.stats._{'discrete' if cls == 'binom_gen' else 'continuous'}_distns"
        yield Case(
            f"S1-distribution-{case}.pkl",
            proto(4) + new(glob(module, cls)) + data + BUILD + STOP,
            "dangerous",
            "both",
            f"a distribution whose state, {why}, is code",
            "scipy",
        )
    frozen = new(glob("scipy.stats._distn_infrastructure", "rv_frozen"))
    for case, holder, attribute, needs in [
        ("frozen", frozen, "_entropy", "scipy"),
        ("estimator", SCALER, "fit", "sklearn"),
    ]:
        owner = holder + dict_(text(attribute), new(WRAPPER)) + BUILD
        yield Case(
            f"S2-getattr-{case}.joblib",
            OPEN
            + call(glob("builtins", "getattr"), owner, text(attribute))
            + state(shape=FOUR)
            + BUILD
            + HIDDEN,
            "unverifiable",
            "joblib",
            "a method that a state replaces by a wrapper, which getattr gives back",
            needs,
        )
    bunch = call(
        glob("copyreg", "_reconstructor"),
        glob("sklearn.utils._bunch", "Bunch"),
        glob("builtins", "dict"),
        EMPTY_DICT,
    )
    for case, mapping, needs in [
        ("dict", EMPTY_DICT, "pandas"),
        ("ordered", ORDERED, "pandas"),
        (
            "defaultdict",
            call(glob("collections", "defaultdict"), glob("builtins", "list")),
            "pandas",
        ),
        ("bunch", bunch, "pandas,sklearn"),
    ]:
        for kind, module, cls in [
            ("dataframe", "pandas.core.frame", "DataFrame"),
            ("series", "pandas.core.series", "Series"),
        ]:
            data = wrapping(mapping, text("_typ") + text(kind))
            yield Case(
                f"S3-{kind}-{case}.joblib",
                OPEN + new(glob(module, cls)) + data + BUILD + HIDDEN,
                "unverifiable",
                "joblib",
                f"a {cls} that becomes a wrapper through its state",
                needs,
            )
        for kind, module, cls in [
            ("boolean", "pandas.core.arrays.boolean", "BooleanDtype"),
            ("integer", "pandas.core.arrays.integer", "IntegerArray"),
            ("int64", "pandas.core.arrays.integer", "Int64Dtype"),
        ]:
            data = tuple_(NONE, wrapping(mapping))
            yield Case(
                f"S3-{kind}-{case}.joblib",
                OPEN + new(glob(module, cls)) + data + BUILD + HIDDEN,
                "unverifiable",
                "joblib",
                f"an object of {cls} that becomes a wrapper through the second of its states",
                needs,
            )
    manager = SCALER + dict_(text("set_axis"), memmap()) + BUILD
    for case, module, cls, axis in [
        ("columns", "pandas.core.frame", "DataFrame", "columns"),
        ("index", "pandas.core.frame", "DataFrame", "index"),
        ("series", "pandas.core.series", "Series", "index"),
    ]:
        yield Case(
            f"S4-setter-{case}.pkl",
            proto(4)
            + new(glob(module, cls))
            + dict_(
                text("_typ") + text(cls.lower()),
                text("_mgr") + manager,
                text(axis) + list_(integer(1), integer(2)),
            )
            + BUILD
            + STOP,
            "unverifiable",
            "both",
            f"{cls}.{axis}, which a state sets, calls what the same state brings",
            "pandas,sklearn",
        )
    yield from instance_methods()
    yield from disguises()
    yield from raw_pointers()
    yield from reexports()


def instance_methods() -> Iterator[Case]:
    """S5: what an opcode calls by name is an attribute of the object itself."""
    execute = glob("six", "exec_")
    code = text(CODE)
    size = integer(1)
    for case, name, function, opcodes, needs in [
        ("setstate", "__setstate__", execute, code + BUILD, "six"),
        ("append", "append", execute, code + APPEND, "six"),
        ("appends", "append", execute, MARK + code + APPENDS, "six"),
        ("add", "add", execute, MARK + code + ADDITEMS, "six"),
        ("setstate-memmap", "__setstate__", memmap(0), size + BUILD, ""),
        ("append-memmap", "append", memmap(0), size + APPEND, ""),
        ("extend-memmap", "extend", memmap(0), MARK + size + APPENDS, ""),
        ("add-memmap", "add", memmap(0), MARK + size + ADDITEMS, ""),
    ]:
        yield Case(
            f"S5-{case}.pkl",
            proto(4) + SCALER + dict_(text(name), function) + BUILD + opcodes + STOP,
            "dangerous",
            "both",
            f"an attribute of the object's own is its method {name}",
            f"sklearn,{needs}".rstrip(","),
        )


def disguises() -> Iterator[Case]:
    """S6: pickles that begin like something else."""
    line = b"I0x" + b"f" * 70_000 + b"\n"
    # To a pickle, catboost's magic bytes are 66 bytes for the stack.
    catboost = b"CBM1" + b"x" * 64
    for case, prefix in [("catboost", catboost), ("plain", b"")]:
        for name, opcodes, executes in [
            ("int", line, "both"),
            ("long4", b"\x8b" + u32(70_000) + b"\x01" * 70_000, "both"),
            ("build", (b"" if prefix else EMPTY_LIST) + NONE + BUILD, "both"),
            ("setitems", (b"" if prefix else EMPTY_LIST) + MARK + SETITEMS, "both"),
            ("appends", (b"" if prefix else NONE) + MARK + APPENDS, "pickle"),
            ("additems", (b"" if prefix else NONE) + MARK + ADDITEMS, "pickle"),
        ]:
            yield Case(
                f"S6-{case}-{name}.pkl",
                prefix + opcodes + PAYLOAD + STOP,
                "unverifiable",
                executes,
                "a pickle that begins like a model of catboost"
                if prefix
                else "a pickle without PROTO that begins with an unusual opcode",
            )
    for name, opcodes, executes in [
        ("hex", line, "both"),
        ("zeros", b"I" + b"0" * 70_000 + b"\n", "pickle"),
        ("float", b"F" + b"0" * 70_000 + b"\n", "both"),
        ("string", b"S'" + b"a" * 70_000 + b"'\n", "both"),
        ("put", b"Np" + b" " * 70_000 + b"1\n", "both"),
    ]:
        yield Case(
            f"S6-text-{name}.pkl",
            opcodes + f"cos\nmkdir\n(S'{MARKER}'\ntR.".encode(),
            "unverifiable",
            executes,
            "a pickle of nothing but text, with a long line first",
        )


def raw_pointers() -> Iterator[Case]:
    """S7: bytes that become pointers to objects."""
    fields = dict_(text("f"), tuple_(I8, integer(0)))
    record = call(glob("numpy", "dtype"), text("V8"), FALSE, TRUE)
    record += value((3, "|", None, ("f",), Op(fields + put(0)), 8, 1, 0)) + BUILD
    array = EMPTY_ARRAY + value((1, (1,), Op(record), False, b"A" * 8)) + BUILD
    index = glob("pandas.core.indexes.base", "Index")
    yield Case(
        "S7-fields.pkl",
        OPEN
        + array
        + put(1)
        + filled(get(0), dict_(text("f"), tuple_(O8, integer(0))))
        + call(glob("pandas.core.indexes.base", "_new_Index"), index, dict_(text("data"), get(1)))
        + CLOSE,
        "unverifiable",
        "crash",
        "the fields of a dtype, changed after an array was made of it",
        "pandas",
    )
    masked = call(
        glob("numpy.ma.core", "_mareconstruct"),
        glob("numpy.ma.core", "MaskedArray"),
        NDARRAY,
        tuple_(integer(0)),
        binary(b"b"),
    )
    kind = Op(dtype("O8", 1, order="|"))
    for case, data, more in [("masked", masked, (b"\0", None)), ("array", EMPTY_ARRAY, ())]:
        yield Case(
            f"S7-{case}.pkl",
            OPEN + data + value((1, (1,), kind, False, b"A" * 8, *more)) + BUILD + CLOSE,
            "unverifiable",
            "crash",
            "an array of dtype O8 whose flags say counted objects, but no list: raw pointers",
        )


# Module, name, arguments, verdict and needs of functions that other libraries have
# of Python's own exec, or that evaluate what they are given.
EXECUTED = [
    ("six", "exec_", (CODE,), "dangerous", "six"),
    ("dateutil.tz.tz", "six.exec_", (CODE,), "dangerous", "python-dateutil<3"),
    ("future.utils", "exec_", (CODE,), "dangerous", "future.utils"),
    ("mpmath.ctx_mp_python", "exec_", (CODE,), "dangerous", "mpmath<1.4"),
    ("mpmath.libmp.backend", "exec_", (CODE,), "dangerous", "mpmath<1.4"),
    ("past.builtins", "execfile", ("companion.py",), "dangerous", "past.builtins"),
    ("pip._vendor.six", "exec_", (CODE,), "dangerous", "pip._vendor.six"),
    ("py.builtin", "exec_", (CODE,), "dangerous", "py>=1"),
    ("py.builtin", "execfile", ("companion.py",), "dangerous", "py>=1"),
    ("urllib3.packages.six", "exec_", (CODE,), "dangerous", "urllib3<2"),
    ("yaml", "unsafe_load", (f"!!python/object/apply:os.mkdir [{MARKER}]",), "dangerous", "yaml"),
    (
        "decorator",
        "FunctionMaker.create",
        (f"f(a={EXPRESSION})", "pass", {}),
        "unverifiable",
        "decorator",
    ),
    ("graphviz.backend.execute", "run_check", (["mkdir", MARKER],), "unverifiable", "graphviz"),
    ("numexpr", "evaluate", (f"(lambda: {EXPRESSION})()",), "unverifiable", "numexpr<2.8.5"),
    ("pkg_resources", "mkdir", (MARKER,), "unverifiable", "pkg_resources"),
    ("sympy", "sympify", (EXPRESSION,), "unverifiable", "sympy"),
    ("sympy.core.sympify", "sympify", (EXPRESSION,), "unverifiable", "sympy"),
    ("sympy.parsing.sympy_parser", "eval_expr", (EXPRESSION, {}, {}), "unverifiable", "sympy"),
    ("sympy.parsing.sympy_parser", "parse_expr", (EXPRESSION,), "unverifiable", "sympy"),
]


def reexports() -> Iterator[Case]:
    for module, name, args, verdict, needs in EXECUTED:
        yield Case(
            f"S8-{module}-{name}.pkl",
            proto(4) + call(glob(module, name), *map(value, args)) + STOP,
            verdict,
            "both",
            f"{module} {name}",
            needs,
        )


def main() -> None:
    (out,) = map(Path, sys.argv[1:])
    out.mkdir(parents=True, exist_ok=True)
    if (table := out / "expected.txt").exists():
        for line in table.read_text(encoding="utf-8").splitlines():
            (out / line.partition(" ")[0]).unlink(missing_ok=True)
    lines = []
    groups = [joblib_cases, generic_cases, container_cases, bypass_cases, state_cases, companions]
    for group in groups:
        for case in group():
            path = out / case.name
            if path.exists():
                sys.exit(f"{case.name}: written twice")
            path.write_bytes(case.data)
            columns = filter(None, [case.name, case.verdict, case.executes, case.needs])
            lines.append(f"{' '.join(columns)} # {case.text}\n")
    table.write_text("".join(sorted(lines)), encoding="utf-8")


if __name__ == "__main__":
    main()
