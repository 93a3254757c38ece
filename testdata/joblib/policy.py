"""Writes the tables that decide what a model file may name, from what was observed.

For a new release of scikit-learn, joblib, numpy, pandas or one of the others:

    pip install -r requirements.txt          with the new versions in it
    python gen.py OUT
    python policy.py OUT/observed.json...
    git diff ../../manifest/joblib/policy

and read the diff: every added line is something a file may do unasked. What
was in allow.txt stays and is widened; --fresh starts from the lists below
alone, and then wants the observed.json of every version. Names that are
neither observed nor listed here never get in, nor do names of packages outside
TRUSTED, nor anything deny.txt covers unless ALLOW names it; these and calls no
rule fits are printed.

The tables were made from gen.py's output under scikit-learn 0.20.4, 0.21.3,
0.22.2, 0.23.2, 0.24.2, 1.0.2, 1.1.3, 1.2.1, 1.3.2, 1.4.2, 1.5.2, 1.6.1, 1.7.2,
1.8.0 and 1.9.1. stdlib.txt also keeps what earlier runs put in; run policy.py
once under each Python. Standard library only, Python 3.10 and later.

    allow.txt    module name uses rule versions     uses: N C V D L, see observe.py
    deny.txt     module name reason                 name * is the module and all below it
    stdlib.txt   module
    python2.txt  module OLD NEW | name OLDMODULE OLD NEWMODULE NEW
    packages.txt module pip-name note
"""

import _compat_pickle
import argparse
import json
import sys
from pathlib import Path

POLICY = Path(__file__).resolve().parents[2] / "manifest" / "joblib" / "policy"

# _loss is sklearn._loss._loss, whose classes 1.5 to 1.8 wrote under that name.
TRUSTED = """_codecs _loss builtins collections copyreg datetime decimal fractions functools uuid
    catboost category_encoders imblearn joblib lightgbm numpy pandas pytz scipy sklearn xgboost""".split()
# What a randomised search draws from: scipy.stats' distributions, without _gen.
CONTINUOUS = """alpha anglit arcsine argus beta betaprime bradford burr12 burr cauchy chi2 chi cosine crystalball dgamma
    dpareto_lognorm dweibull erlang expon exponnorm exponpow exponweib f fatiguelife fisk foldcauchy
    foldnorm frechet_l frechet_r gamma gausshyper genexpon genextreme gengamma genhalflogistic
    genhyperbolic geninvgauss genlogistic gennorm genpareto gibrat gilbrat gompertz gumbel_l gumbel_r
    halfcauchy halfgennorm halflogistic halfnorm hypsecant invgamma invgauss invweibull irwinhall
    jf_skew_t johnsonsb johnsonsu kappa3 kappa4 ksone kstwo kstwobign landau laplace_asymmetric laplace
    levy levy_l loggamma logistic loglaplace lognorm lomax maxwell mielke moyal nakagami ncf nct ncx2
    norm norminvgauss pareto pearson3 powerlaw powerlognorm powernorm rayleigh rdist recipinvgauss
    reciprocal rel_breitwigner rice semicircular skewcauchy skewnorm studentized_range t trapezoid trapz
    triang truncexpon truncnorm truncpareto truncweibull_min tukeylambda uniform vonmises wald
    weibull_max weibull_min wrapcauchy""".split()
DISCRETE = """bernoulli betabinom betanbinom binom boltzmann dlaplace geom hypergeom logser nbinom nchypergeom_fisher
    nchypergeom_wallenius nhypergeom planck poisson_binom poisson randint skellam yulesimon zipf zipfian""".split()

SCALARS = """bool bool_ int8 int16 int32 int64 uint8 uint16 uint32 uint64 intc uintc intp uintp int_ uint
    longlong ulonglong byte ubyte short ushort long ulong float16 float32 float64 float128 half single double
    longdouble float_ complex64 complex128 complex256 csingle cdouble clongdouble complex_ str_ bytes_ unicode_
    string_ object_ void datetime64 timedelta64 generic number integer signedinteger unsignedinteger inexact
    floating complexfloating flexible character""".split()
UFUNCS = """abs absolute add arccos arccosh arcsin arcsinh arctan arctan2 arctanh cbrt ceil conjugate cos cosh
    deg2rad degrees divide equal exp exp2 expm1 fabs float_power floor floor_divide fmax fmin fmod greater
    greater_equal hypot invert isfinite isinf isnan less less_equal log log10 log1p log2 logaddexp logical_and
    logical_not logical_or maximum minimum mod multiply negative not_equal positive power rad2deg radians
    reciprocal remainder rint sign signbit sin sinh sqrt square subtract tan tanh true_divide trunc""".split()
FUNCTIONS = """amax amin any all argmax argmin around average clip count_nonzero cumsum diff max mean median min
    nan_to_num nanmax nanmean nanmedian nanmin nanstd nansum nanvar prod ptp ravel round std sum var
    where""".split()

# "module:name" -> (uses, rule): what gen.py does not show, and rules it would not guess.
ALLOW = {
    "joblib.numpy_pickle:NumpyArrayWrapper": ("N", "-"),
    "sklearn.externals.joblib.numpy_pickle:NumpyArrayWrapper": ("N", "-"),
    "numpy:dtype": ("C", "dtype"),
    "numpy.ma.core:_mareconstruct": ("C", "mareconstruct"),
    "_codecs:encode": ("C", "latin1"),
    "numpy.random._pickle:__randomstate_ctor": ("C", "randomstate"),
    "numpy.random._pickle:__generator_ctor": ("C", "randomstate"),
    "numpy.random._pickle:__bit_generator_ctor": ("CV", "bitgen"),
    "numpy.random:__RandomState_ctor": ("C", "literals"),
    "numpy.random.bit_generator:__pyx_unpickle_SeedSequence": ("C", "cyclass"),
    "copyreg:_reconstructor": ("C", "newobj"),
    "collections:defaultdict": ("CD", "factory"),
    "collections:OrderedDict": ("CVD", "literals"),
    "collections:Counter": ("CD", "literals"),
    "collections:deque": ("CL", "literals"),
    "builtins:set": ("CV", "items"),
    "builtins:frozenset": ("CV", "items"),
    "datetime:datetime": ("C", "values"),
    "datetime:time": ("C", "values"),
    "datetime:timezone": ("C", "values"),
    "datetime:date": ("C", "literals"),
    "datetime:timedelta": ("C", "literals"),
    "decimal:Decimal": ("C", "literals"),
    "fractions:Fraction": ("C", "literals"),
    "uuid:UUID": ("N", "-"),
    "sklearn.tree._tree:Tree": ("C", "tree"),
    "pytz:_UTC": ("C", "literals"),
    "pytz:_p": ("C", "literals"),
    "pandas:NA": ("V", "-"),
    "pandas._libs.missing:NA": ("V", "-"),
    "pandas._libs.missing:_NA": ("V", "-"),
    "pandas:StringDtype": ("NC", "values"),  # the one that is given NA, which is a value
    "pandas.core.arrays.string_:StringDtype": ("NC", "values"),
    "xgboost.compat:XGBoostLabelEncoder": ("N", "-"),
    # HistGradientBoosting with categories keeps a partial of check_array, since 1.4.
    "functools:partial": ("C", "partial"),
    "sklearn.utils.validation:check_array": ("V", "-"),
    "numpy.core:_ufunc_reconstruct": ("C", "ufunc"),  # before numpy 1.20
    # SplineTransformer keeps a scipy BSpline, which keeps this function.
    "scipy._lib.array_api_compat.numpy._aliases:asarray": ("V", "-"),
    # The names of some releases before 0.20, which no longer install.
    "sklearn.grid_search:GridSearchCV": ("N", "-"),
    "sklearn.grid_search:RandomizedSearchCV": ("N", "-"),
    "sklearn.preprocessing.imputation:Imputer": ("N", "-"),
    "sklearn.naive_bayes:BaseDiscreteNB": ("N", "-"),
    "sklearn.lda:LDA": ("N", "-"),
    "sklearn.qda:QDA": ("N", "-"),
    "sklearn.utils.bunch:Bunch": ("ND", "-"),
    "sklearn.utils.deprecation:DeprecationDict": ("ND", "-"),
    "sklearn.utils:Bunch": ("ND", "-"),
}
ALLOW.update(("builtins:" + name, ("V", "-")) for name in "object int float str bool list tuple dict".split())
ALLOW.update(("builtins:" + name, ("V", "-")) for name in ("Ellipsis", "NotImplemented"))
ALLOW.update(
    ("builtins:" + name, ("CV", "literals")) for name in "slice range complex bytearray bytes".split()
)
ALLOW.update(("numpy:" + name, ("V", "-")) for name in SCALARS + UFUNCS + FUNCTIONS)
ALLOW.update(("numpy:" + name, ("V", "-")) for name in "ndarray matrix memmap recarray record".split())
ALLOW.update(
    (module + ":" + name, ("V", "-"))
    for module, name in [
        ("numpy.rec", "recarray"), ("numpy.rec", "record"),
        ("numpy.ma.core", "MaskedArray"), ("numpy.ma", "MaskedArray"),
        ("numpy.matrixlib.defmatrix", "matrix"),

        ("numpy.core.records", "recarray"), ("numpy.core.records", "record"),
        ("numpy._core.records", "recarray"), ("numpy._core.records", "record"),
    ]
)  # fmt: skip
for core in "numpy.core", "numpy._core":
    ALLOW[core + ".multiarray:_reconstruct"] = "C", "reconstruct"
    ALLOW[core + ".multiarray:scalar"] = "C", "scalar"
    ALLOW[core + ".numeric:_frombuffer"] = "C", "frombuffer"
    for module in "_multiarray_umath", "umath":
        ALLOW.update((f"{core}.{module}:{name}", ("V", "-")) for name in UFUNCS)
for kind in "MT19937 PCG64 PCG64DXSM Philox SFC64".split():
    ALLOW[f"numpy.random._{kind.lower().removesuffix('dxsm')}:{kind}"] = "V", "-"
for (
    name
) in "expit logit log1p expm1 log_expit erf erfc gammaln xlogy xlog1py boxcox boxcox1p inv_boxcox".split():
    ALLOW["scipy.special._ufuncs:" + name] = "V", "-"
for kind in "bsr coo csc csr dia dok lil".split():
    for module in f"scipy.sparse.{kind}", f"scipy.sparse._{kind}":
        ALLOW[f"{module}:{kind}_matrix"] = "ND" if kind == "dok" else "N", "-"
    for module in "scipy.sparse._arrays", f"scipy.sparse._{kind}":
        ALLOW[f"{module}:{kind}_array"] = "ND" if kind == "dok" else "N", "-"
for (
    loss
) in """AbsoluteError ExponentialLoss HalfBinomialLoss HalfGammaLoss HalfMultinomialLoss HalfPoissonLoss
        HalfSquaredError HalfTweedieLoss HalfTweedieLossIdentity HuberLoss PinballLoss""".split():
    for module in "sklearn._loss._loss", "_loss":
        ALLOW[f"{module}:Cy{loss}"] = "CV", "literals"
        ALLOW[f"{module}:__pyx_unpickle_Cy{loss}"] = "C", "cyclass"
    ALLOW["sklearn._loss.loss:" + loss] = "N", "-"
for link in "IdentityLink LogLink LogitLink HalfLogitLink MultinomialLogit Interval".split():
    ALLOW["sklearn._loss.link:" + link] = "N", "-"
for loss in """EpsilonInsensitive Hinge Huber Log ModifiedHuber SquaredEpsilonInsensitive SquaredHinge
        SquaredLoss""".split():
    for module in "_sgd_fast", "sgd_fast":
        ALLOW[f"sklearn.linear_model.{module}:{loss}"] = "C", "literals"
METRICS = """BrayCurtis Canberra Chebyshev Dice Euclidean Hamming Haversine Jaccard Kulsinski Mahalanobis Manhattan
    Matching Minkowski PyFunc RogersTanimoto RussellRao SEuclidean SokalMichener SokalSneath WMinkowski""".split()
for module in (
    "sklearn.metrics._dist_metrics",
    "sklearn.neighbors._dist_metrics",
    "sklearn.neighbors.dist_metrics",
):
    ALLOW[module + ":newObj"] = "C", "sameclass"
    for metric in METRICS:
        if metric == "PyFunc":
            continue  # calls what it is given
        for bits in ("", "32", "64") if module.startswith("sklearn.metrics") else ("",):
            ALLOW[f"{module}:{metric}Distance{bits}"] = "V", "-"
for module, tree in [
    ("_kd_tree", "KDTree"),
    ("kd_tree", "KDTree"),
    ("_ball_tree", "BallTree"),
    ("ball_tree", "BallTree"),
]:
    ALLOW[f"sklearn.neighbors.{module}:newObj"] = "C", "sameclass"
    for bits in "", "32", "64":
        ALLOW[f"sklearn.neighbors.{module}:{tree}{bits}"] = "V", "-"
# rv_generic.__setstate__ executes a text out of the state; the rule knows that text.
for module, distributions in ("continuous", CONTINUOUS), ("discrete", DISCRETE):
    ALLOW.update((f"scipy.stats._{module}_distns:{name}_gen", ("N", "distribution")) for name in distributions)
ALLOW.update(
    ("scipy.stats._distn_infrastructure:" + name, ("N", "-"))
    for name in ("rv_frozen", "rv_continuous_frozen", "rv_discrete_frozen")
)
# A discrete distribution keeps numpy.vectorize of its own method _entropy.
ALLOW["builtins:getattr"] = "C", "method"
ALLOW["numpy:vectorize"] = "N", "vectorize"
# What people put beside a model: a time zone, a path, a compiled pattern.
ALLOW["zoneinfo:ZoneInfo"] = "V", "-"
ALLOW["re:_compile"] = "C", "literals"
ALLOW.update(
    (f"{module}:{name}", ("C", "literals"))
    for module in ("pathlib", "pathlib._local")
    for name in ("PosixPath", "WindowsPath", "PurePosixPath", "PureWindowsPath")
)
ALLOW["sklearn.compose._column_transformer:make_column_selector"] = "N", "-"
ALLOW["numpy:poly1d"] = "N", "-"
ALLOW["sklearn.neighbors.quad_tree:_QuadTree"] = ALLOW["sklearn.neighbors._quad_tree:_QuadTree"] = (
    "C",
    "literals",
)

# reason: names. A name is a module, which goes with all below it, or module:name.
DENY = {
    "process": """os posix nt posixpath ntpath subprocess pty commands _posixsubprocess multiprocessing
        _multiprocessing asyncio _osx_support _aix_support pipes platform webbrowser _pyrepl popen2 pexpect uuid
        imaplib:IMAP4_stream concurrent joblib.parallel joblib.pool joblib.executor joblib._parallel_backends
        joblib:Parallel joblib:delayed dask paramiko fabric psutil ray distributed sh invoke""",
    "code": """builtins:eval builtins:exec builtins:compile builtins:__import__ builtins:getattr builtins:setattr
        builtins:delattr builtins:open builtins:input builtins:breakpoint builtins:globals builtins:locals
        builtins:vars builtins:apply builtins:execfile builtins:reload builtins:type builtins:super builtins:map
        builtins:filter builtins:iter builtins:property builtins:classmethod builtins:staticmethod
        builtins:memoryview builtins:dir builtins:help builtins:print builtins:exit builtins:quit
        builtins:__build_class__ builtins:__loader__ builtins:__spec__ builtins:__dict__ builtins:hasattr
        builtins:callable builtins:next builtins:zip builtins:enumerate builtins:sorted builtins:reversed
        builtins:raw_input builtins:file builtins:copyright builtins:credits builtins:license
        code codeop runpy marshal types imp importlib _imp _frozen_importlib _frozen_importlib_external pkgutil
        zipimport ast timeit trace profile cProfile _lsprof bdb pdb doctest unittest test lib2to3 idlelib pydoc
        inspect gc site venv ensurepip pip distutils setuptools _distutils_hack pkg_resources _xxsubinterpreters
        _xxinterpchannels _interpreters _interpchannels _interpqueues _testcapi _testinternalcapi _testsinglephase
        _testmultiphase new compiler ihooks rexec bdist py_compile compileall modulefinder symtable tokenize
        pyclbr rlcompleter cgitb cgi antigravity this turtledemo turtle tkinter _tkinter Tkinter curses readline
        numpy.f2py numpy.testing numpy.distutils numpy.compat numpy.lib.utils numpy.lib._utils_impl
        numpy.core._internal numpy._core._internal numpy._core:_ufunc_reconstruct
        numpy:vectorize numpy:frompyfunc numpy:apply_along_axis numpy:apply_over_axes numpy:fromfunction
        numpy:piecewise numpy:source numpy:info numpy:lookfor numpy:fromiter numpy:safe_eval
        scipy._lib scipy.misc scipy._build_utils scipy.weave scipy.LowLevelCallable
        sklearn._build_utils sklearn.utils._testing sklearn.utils.testing sklearn.utils.estimator_checks
        sklearn.utils.deprecation sklearn.utils.validation sklearn.utils.parallel sklearn.utils.fixes
        sklearn.conftest sklearn.tests sklearn.__check_build
        pandas:eval pandas.core.computation pandas._testing pandas.util pandas.conftest pandas.tests
        torch._inductor torch.utils.bottleneck torch.utils._config_module torch.utils.collect_env
        torch.utils.data.datapipes torch.jit torch.fx.experimental.symbolic_shapes torch._dynamo torch.hub
        torch.utils.cpp_extension torch.cuda.jiterator numba cython pyximport llvmlite execnet IPython
        ipykernel jupyter_client nbconvert jinja2 mako bottle six patsy numexpr sympy mpmath formulaic pytest _pytest
        py simpleeval asteval RestrictedPython future.utils past.builtins dateparser.utils pyparsing cloudpathlib
        invoke fabric paramiko plumbum sh pexpect ptyprocess psutil celery gunicorn distributed""",
    "indirection": """operator _operator functools _functools weakref _weakref _weakrefset atexit signal _signal
        threading _thread thread _threading_local dummy_threading dummy_thread contextlib contextvars copy itertools
        copyreg:add_extension copyreg:constructor copyreg:pickle copyreg:__newobj__ copyreg:__newobj_ex__
        copyreg:dispatch_table copyreg:_extension_registry copyreg:_inverted_registry copyreg:_extension_cache
        copyreg:remove_extension copyreg:clear_extension_cache enum dataclasses typing abc _abc string:Formatter
        sched queue selectors warnings traceback sre_compile sre_parse toolz cytoolz
        sklearn.neighbors._dist_metrics:PyFuncDistance sklearn.neighbors.dist_metrics:PyFuncDistance
        sklearn.metrics._dist_metrics:PyFuncDistance sklearn.metrics._dist_metrics:PyFuncDistance64
        sklearn.metrics._dist_metrics:PyFuncDistance32""",
    "deserialise": """pickle _pickle cPickle pickletools dill cloudpickle shelve jsonpickle yaml _yaml ruamel
        dbm anydbm dbhash gdbm _gdbm _dbm bsddb whichdb plistlib msgpack hickle klepto
        joblib:load joblib:dump joblib.numpy_pickle joblib.numpy_pickle_compat joblib.numpy_pickle_utils
        joblib.externals joblib.compressor joblib.hashing joblib._memmapping_reducer joblib.test
        numpy:load numpy.lib.npyio numpy.lib._npyio_impl numpy.lib.format numpy.lib._format_impl
        pandas:read_pickle pandas:HDFStore pandas:read_hdf pandas.io pandas.compat.pickle_compat
        sklearn.externals torch:load torch.storage:_load_from_bytes torch.serialization torch.package
        skops.io keras.models keras.saving tensorflow.saved_model tensorflow.keras.models""",
    "file": """io _io _pyio pathlib _pathlib shutil tempfile glob fileinput linecache mmap codecs:open
        tarfile zipfile zlib:decompressobj gzip bz2 lzma zipapp _compression compression sqlite3 _sqlite3 _bz2 _lzma
        logging ctypes _ctypes cffi _cffi_backend numpy.ctypeslib mailbox netrc xdrlib csv configparser
        ConfigParser filecmp statcache nturl2path macurl2path bsddb3 h5py fsspec
        joblib.memory joblib:Memory joblib._store_backends joblib.disk joblib.backports joblib.logger
        joblib.func_inspect
        numpy:fromfile numpy:loadtxt numpy:genfromtxt numpy:save numpy:savez numpy:savez_compressed numpy:savetxt
        numpy:DataSource numpy:fromregex numpy:open_memmap numpy:recfromtxt numpy:recfromcsv
        numpy.lib._datasource numpy.DataSource scipy.io scipy.datasets sklearn.datasets
        pandas:read_csv pandas:read_table pandas:read_json pandas:read_html pandas:read_xml pandas:read_excel
        pandas:read_parquet pandas:read_feather pandas:read_orc pandas:read_sql pandas:read_sql_query
        pandas:read_sql_table pandas:read_fwf pandas:read_sas pandas:read_spss pandas:read_stata
        pandas:read_gbq pandas:read_clipboard pandas:ExcelFile pandas:ExcelWriter pandas:to_pickle""",
    "network": """sklearn.callback socket _socket ssl _ssl http httplib urllib urllib2 urlparse requests aiohttp ftplib smtplib
        smtpd poplib imaplib telnetlib nntplib xmlrpc xmlrpclib SimpleXMLRPCServer DocXMLRPCServer socketserver
        SocketServer BaseHTTPServer CGIHTTPServer SimpleHTTPServer wsgiref asyncore asynchat httpx urllib3 websocket
        websockets tornado twisted gevent pycurl boto3 botocore gopherlib""",
    "tamper": """sys picklescan modelscan fickling modelaudit faulthandler tracemalloc""",
}

PYTHON2 = """AL BaseHTTPServer Bastion CGIHTTPServer Canvas ConfigParser Cookie Dialog DocXMLRPCServer FileDialog
    HTMLParser MimeWriter Queue ScrolledText SimpleDialog SimpleHTTPServer SimpleXMLRPCServer SocketServer StringIO
    Tix Tkconstants Tkdnd Tkinter UserDict UserList UserString __builtin__ _winreg anydbm applesingle buildtools
    bsddb cPickle cStringIO cfmfile cl commands compiler cookielib copy_reg dbhash dircache dl
    dumbdbm dummy_thread dummy_threading exceptions fl fm fpformat future_builtins gdbm gensuitemodule hotshot
    htmlentitydefs htmllib httplib ihooks imageop imputil itertools jpeg macostools markupbase md5 mhlib mimetools
    mimify multifile mutex new os2emxpath popen2 posixfile pure readline repr rexec rfc822 robotparser sets sgmllib
    sha stat statvfs strop sunaudio sunaudiodev thread tkColorChooser tkCommonDialog tkFileDialog tkFont
    tkMessageBox tkSimpleDialog toaiff ttk CDROM DLFCN FixTk IN TYPES _LWPCookieJar _MozillaCookieJar
    _abcoll _hotshot _sha audiodev linuxaudiodev sre stringold xxlimited xxsubtype
    urllib2 urlparse user videoreader whichdb xmllib xmlrpclib""".split()
REMOVED = """_bootlocale _dummy_thread _imp aifc asynchat asyncore audioop binhex cgi cgitb chunk crypt distutils
    dummy_threading formatter fpectl imghdr imp lib2to3 macpath macurl2path mailcap msilib nis nntplib ossaudiodev
    parser pipes smtpd sndhdr spwd sunau symbol telnetlib this tkinter uu xdrlib _crypt _nis _spwd _ossaudiodev
    _xxsubinterpreters _xxinterpchannels _sha256 _sha512 _testcapi _testinternalcapi _testbuffer _testimportmultiple
    _testmultiphase _xxtestfuzz test idlelib __future__
    turtledemo""".split()

# module -> pip name, where it differs or a note is due; the rest are called what they are.
PACKAGES = {
    "_loss": "scikit-learn",
    "Bio": "biopython", "Crypto": "pycryptodome", "PIL": "pillow", "attr": "attrs", "bs4": "beautifulsoup4",
    "category_encoders": "category-encoders", "cv2": "opencv-python", "dateutil": "python-dateutil",
    "factor_analyzer": "factor-analyzer", "feature_engine": "feature-engine", "flaml": "FLAML",
    "ftfy": "ftfy", "gplearn": "gplearn", "igraph": "python-igraph", "imblearn": "imbalanced-learn",
    "interpret": "interpret", "kmodes": "kmodes", "Levenshtein": "python-Levenshtein", "mapie": "MAPIE",
    "pgmpy": "pgmpy", "pkg_resources": "setuptools", "prophet": "prophet", "fbprophet": "fbprophet",
    "pyearth": "sklearn-contrib-py-earth", "pytorch_lightning": "pytorch-lightning",
    "pytorch_tabnet": "pytorch-tabnet", "quantile_forest": "quantile-forest", "skbase": "scikit-base",
    "sentence_transformers": "sentence-transformers", "skimage": "scikit-image", "sklearn": "scikit-learn",
    "sklearn_crfsuite": "sklearn-crfsuite", "sklearn_extra": "scikit-learn-extra",
    "sklearn_genetic": "sklearn-genetic-opt", "sklearn_pandas": "sklearn-pandas", "sklego": "scikit-lego",
    "skmultilearn": "scikit-multilearn", "skopt": "scikit-optimize", "skorch": "skorch", "sksurv": "scikit-survival",
    "snowballstemmer": "snowballstemmer", "stop_words": "stop-words", "torch_geometric": "torch-geometric",
    "umap": "umap-learn", "yaml": "pyyaml", "yellowbrick": "yellowbrick",
}  # fmt: skip
PACKAGES.update(
    (name, name)
    for name in """autogluon boruta catboost cloudpickle cuml dask deslib dill econml eli5 fastai feature_selector
    flaml gensim hdbscan hmmlearn hyperopt interpret joblib jieba keras lifelines lightgbm lightning lime llvmlite
    matplotlib mlflow mlxtend networkx ngboost nltk numba numpy onnxruntime optuna pandas patsy pmdarima polars
    pyarrow pydantic pynndescent pyod pyspark pytz river scipy seaborn shap sktime skops spacy statsmodels sympy
    tensorflow textblob thinc tokenizers torch torchvision tpot tqdm transformers treeinterpreter tslearn tsfresh
    tzlocal xgboost narwhals dirty_cat skrub woodwork optbinning causalml imodels""".split()
    if name not in PACKAGES
)
NOTES = {
    "_loss": "as 1.5 to 1.8 wrote sklearn._loss._loss",
    "xgboost": "its booster is opaque",
    "lightgbm": "its booster is opaque",
    "catboost": "its model is opaque",
}


# What is installed wherever models are served. Names of these that are not listed
# are refused, for nobody knows them all.
PRESENT = """numpy scipy sklearn joblib pandas threadpoolctl dateutil pytz six tzdata matplotlib PIL xgboost lightgbm
    catboost imblearn category_encoders fastapi pydantic pydantic_core starlette uvicorn anyio sniffio click h11 httptools
    uvloop watchfiles websockets idna annotated_types typing_extensions httpx httpcore certifi packaging""".split()
for name in PRESENT:
    PACKAGES.setdefault(name, name.replace("_", "-"))


def denied(module: str, name: str) -> bool:
    for names in DENY.values():
        for entry in names.split():
            where, _, what = entry.partition(":")
            if (what == name and where == module) or (not what and (module + ".").startswith(where + ".")):
                return True
    return False


def rule_for(key: str, shapes: list) -> str:
    """The strictest rule for arguments of these shapes, or "" if none fits."""
    module, _, name = key.partition(":")
    if key in ALLOW:
        return ALLOW[key][1]
    if name.startswith("__pyx_unpickle_"):
        return "cyclass"
    if name == "newObj":
        return "sameclass"
    own = "global:%s" % module.partition(".")[0]
    bare = [shape.removeprefix("new")[1:-1] for shape in shapes]
    if any(shape.startswith(own) for shape in bare):
        rest = [shape.partition(", ")[2] for shape in bare]
        return "" if any("global:" in shape for shape in rest) else "ownclass"
    if any("global:" in shape for shape in bare):
        return ""
    return (
        "values"
        if any(word in shape for shape in bare for word in ("object", "array", "dtype", "..."))
        else "literals"
    )


def release(version: str) -> tuple:
    return tuple(int(part) for part in version.split(".")[:2])


def span(*versions: str) -> str:
    """The "first-last" that covers others of its kind and single versions."""
    found = sorted({v for item in versions if item != "-" for v in item.split("-")}, key=release)
    return found[0] + "-" + found[-1] if found else "-"


class Table:
    def __init__(self):
        self.rows = {}  # "module:name" -> [uses, rule, versions]

    def add(self, key: str, uses: str, rule: str, versions: str = "-"):
        old = self.rows.get(key, ["", "-", "-"])
        both = "".join(u for u in "NCVDL" if u in old[0] + uses)
        if key in ALLOW:
            both, rule = "".join(u for u in "NCVDL" if u in both + ALLOW[key][0]), ALLOW[key][1]
        elif old[1] != "-" and rule != old[1]:
            order = ["-", "literals", "values", "ownclass"]
            rule = max(old[1], rule, key=lambda r: order.index(r) if r in order else 9)
        self.rows[key] = [both, rule, span(old[2], versions)]

    def observed(self, file: Path):
        data = json.loads(file.read_text())
        version = ".".join(data["versions"]["sklearn"].split(".")[:2])
        seen = {key: (uses, []) for key, uses in data["offered"].items()}
        for key, what in data["globals"].items():
            letters = what["uses"] + seen.get(key, ("",))[0]
            seen[key] = letters, what["args"]
        for key, (uses, shapes) in sorted(seen.items()):
            module, _, name = key.partition(":")
            package = module.partition(".")[0]
            rule = rule_for(key, shapes) if "C" in uses else "-"
            problem = ""
            if package == "__main__":
                continue
            if package not in TRUSTED:
                problem = "is of no trusted package"
            elif key not in ALLOW and denied(module, name):
                problem = "is denied"
            elif not rule:
                problem = "is called as no rule allows: %s" % shapes
            elif "." in name:
                problem = "is dotted"
            if problem:
                print("%s: %s %s" % (version, key, problem), file=sys.stderr)
                continue
            self.add(key, uses, rule, version if package == "sklearn" else "-")


def records(file: Path) -> list:
    text = file.read_text() if file.exists() else ""
    return [line.split() for line in text.splitlines() if line and not line.startswith("#")]


def save(name: str, head: str, rows) -> None:
    lines = sorted({" ".join(row) for row in rows})
    (POLICY / name).write_text("# Written by testdata/joblib/policy.py. %s\n%s\n" % (head, "\n".join(lines)))


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("observed", type=Path, nargs="*")
    parser.add_argument("--fresh", action="store_true", help="forget what allow.txt and stdlib.txt hold")
    args = parser.parse_args()
    POLICY.mkdir(parents=True, exist_ok=True)

    table = Table()
    for key, (uses, rule) in ALLOW.items():
        table.add(key, uses, rule)
    for module, name, uses, rule, versions in [] if args.fresh else records(POLICY / "allow.txt"):
        if name == "memmap" and module != "numpy":
            continue  # an array's class is always numpy's memmap
        table.add(module + ":" + name, uses, rule, versions)
    for file in args.observed:
        table.observed(file)
    save(
        "allow.txt",
        "module name uses rule versions",
        ([*k.split(":"), *row] for k, row in table.rows.items()),
    )

    entries = ((entry.partition(":"), reason) for reason, names in DENY.items() for entry in names.split())
    save(
        "deny.txt",
        "module name reason",
        ((where, what or "*", reason) for (where, _, what), reason in entries),
    )

    kept = [] if args.fresh else [row[0] for row in records(POLICY / "stdlib.txt")]
    own = {*sys.stdlib_module_names, *PYTHON2, *REMOVED, *kept}
    save("stdlib.txt", "module", ([name] for name in own))

    modules = [("module", *pair) for pair in _compat_pickle.IMPORT_MAPPING.items()]
    names = [("name", *old, *new) for old, new in _compat_pickle.NAME_MAPPING.items()]
    save("python2.txt", "module OLD NEW | name OLDMODULE OLD NEWMODULE NEW", modules + names)

    notes = (
        (name, pip, NOTES.get(name, "-").replace(" ", "_"), "present" if name in PRESENT else "-")
        for name, pip in PACKAGES.items()
    )
    save("packages.txt", "module pip-name note present", notes)


if __name__ == "__main__":
    main()
