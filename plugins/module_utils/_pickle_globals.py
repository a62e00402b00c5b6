# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Judge the names that a pickle would import, without importing them.

Lists of known attacks were bypassed again and again, by one more function of the standard library each time. So in the
standard library, torch and numpy everything is dangerous that is not known to be data; for other packages, whose
classes nobody can list, names that hide something or do something are. This util is private to the collection.
"""

from __future__ import annotations

import re
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from typing import Dict, FrozenSet

from ansible_collections.ringrift.recovery.plugins.module_utils._torch_types import DTYPES, STORAGES

ALLOWED = "allowed"
SUSPICIOUS = "suspicious"
DANGEROUS = "dangerous"


def _table(text: str) -> Dict[str, FrozenSet[str]]:
    """Lines of a module and its names."""
    rows = (line.split() for line in text.strip().splitlines())
    return {row[0]: frozenset(row[1:]) for row in rows}


# What torch.load accepts with weights_only, and the helpers that only TorchScript files use.
_ALLOWED = _table("""
    builtins bytearray set complex
    collections OrderedDict Counter
    _codecs encode
    torch Size Tensor device per_tensor_affine per_tensor_symmetric per_channel_affine per_channel_symmetric \
    per_channel_affine_float_qparams
    torch.nn.parameter Parameter
    torch.serialization _get_layout
    torch._tensor _rebuild_from_type_v2
    torch._utils _rebuild_parameter _rebuild_parameter_with_state _rebuild_qtensor _rebuild_tensor _rebuild_tensor_v2 \
    _rebuild_tensor_v3 _rebuild_sparse_tensor _rebuild_meta_tensor_no_storage _rebuild_nested_tensor \
    _rebuild_wrapper_subclass _rebuild_device_tensor_from_numpy _rebuild_device_tensor_from_cpu_tensor
    torch.jit._pickle build_intlist build_tensorlist build_doublelist build_boollist restore_type_tag
""")
_STORAGE_KINDS = frozenset({*STORAGES, "Typed"})
_STORAGE_MODULES = frozenset({"torch", "torch.storage", "torch.cuda", "torch.sparse"})

# Data, in packages where everything else is dangerous.
_HARMLESS = _table("""
    builtins frozenset int float str bytes list dict tuple bool slice range object iter reversed enumerate zip \
    NoneType Ellipsis NotImplemented StopIteration KeyboardInterrupt
    argparse Namespace
    array array _array_reconstructor
    collections defaultdict deque ChainMap UserDict UserList UserString
    copyreg _reconstructor __newobj__ __newobj_ex__
    datetime date datetime time timedelta timezone tzinfo
    decimal Decimal
    fractions Fraction
    io BytesIO StringIO
    _io BytesIO StringIO
    ipaddress IPv4Address IPv4Interface IPv4Network IPv6Address IPv6Interface IPv6Network
    itertools chain count cycle repeat
    logging getLogger
    pathlib Path PosixPath WindowsPath PurePath PurePosixPath PureWindowsPath
    pathlib._local Path PosixPath WindowsPath PurePath PurePosixPath PureWindowsPath
    random Random
    re _compile RegexFlag
    time struct_time
    types SimpleNamespace MappingProxyType NoneType
    uuid UUID SafeUUID
    torch Generator dtype layout memory_format strided sparse_coo sparse_csr contiguous_format channels_last \
    channels_last_3d preserve_format
    torch._tensor _rebuild_from_type
    numpy dtype ndarray matrix recarray record bool bool_ str_ bytes_ void object_ int8 int16 int32 int64 uint8 uint16 \
    uint32 uint64 float16 float32 float64 longdouble complex64 complex128 clongdouble datetime64 timedelta64
    numpy.core.multiarray _reconstruct scalar
    numpy.core.numeric _frombuffer
    numpy.ma.core MaskedArray _mareconstruct
    numpy.random._pickle __randomstate_ctor __generator_ctor __bit_generator_ctor
""")
# Where classes are data and functions are not, and where functions are harmless as well.
_CLASSES = re.compile(
    r"torch\.(nn|optim|distributions|amp|cuda\.amp|ao\.nn|ao\.quantization\.(observer|fake_quantize|qconfig)"
    r"|utils\.data\.(dataset|dataloader|sampler|distributed)|distributed\._?tensor)(\..+)?"
    r"|numpy\.(dtypes|random|polynomial)(\..+)?"
)
_FUNCTIONS = re.compile(r"torch\.nn\.functional|torch\._C\._nn|torch\.return_types")

# All public modules from Python 3.6 to 3.14, and one of Python 2 that has no other name today. Modules whose names
# begin with an underscore need no list.
_STDLIB_TEXT = """
    abc aifc annotationlib antigravity argparse array ast asynchat asyncio asyncore atexit audioop base64 bdb binascii
    binhex bisect builtins bz2 cProfile calendar cgi cgitb chunk cmath cmd code codecs codeop collections colorsys
    compileall compression concurrent configparser contextlib contextvars copy copyreg crypt csv ctypes curses
    dataclasses datetime dbm decimal difflib dis distutils doctest dummy_threading email encodings ensurepip enum errno
    faulthandler fcntl filecmp fileinput fnmatch formatter fractions ftplib functools gc genericpath getopt getpass
    gettext glob graphlib grp gzip hashlib heapq hmac html http idlelib imaplib imghdr imp importlib inspect io
    ipaddress itertools json keyword lib2to3 linecache locale logging lzma macpath mailbox mailcap marshal math
    mimetypes mmap modulefinder msilib msvcrt multiprocessing netrc nis nntplib nt ntpath nturl2path numbers opcode
    operator optparse os ossaudiodev parser pathlib pdb pickle pickletools pipes pkgutil platform plistlib poplib posix
    posixpath pprint profile pstats pty pwd py_compile pyclbr pydoc pydoc_data pyexpat queue quopri random re readline
    reprlib resource rlcompleter runpy sched secrets select selectors shelve shlex shutil signal site smtpd smtplib
    sndhdr socket socketserver spwd sqlite3 sre_compile sre_constants sre_parse ssl stat statistics string stringprep
    struct subprocess sunau symbol symtable sys sysconfig syslog tabnanny tarfile telnetlib tempfile termios test
    textwrap this threading time timeit tkinter token tokenize tomllib trace traceback tracemalloc tty turtle turtledemo
    types typing unicodedata unittest urllib uu uuid venv warnings wave weakref webbrowser winreg winsound wsgiref
    xdrlib xml xmlrpc xxlimited xxsubtype zipapp zipfile zipimport zlib zoneinfo
    popen2
"""
_STDLIB = frozenset(_STDLIB_TEXT.split())
# Other packages that run commands or code, load more pickles or talk to the network, with all that is in them. The last
# line is of what would switch off a scanner.
_PACKAGES_TEXT = """
    Cython IPython aiohttp ansible boto3 botocore celery cffi cloudpickle dask dill django docker execnet fabric fire
    flask fsspec future gevent httpx hydra invoke ipykernel jinja2 joblib jsonpickle keras kubernetes mako nbformat
    nose numba numexpr paramiko past pexpect pip pkg_resources plumbum ptyprocess py pyximport pytest ray requests
    scipy.weave setuptools sh six smart_open sympy tensorflow tornado twisted urllib3 virtualenv wandb webob werkzeug
    wheel yaml pandas.io pandas.core.computation
    fickling modelaudit modelscan model_unpickler picklescan saferpickle
"""
_PACKAGES = frozenset(_PACKAGES_TEXT.split())
# What no name may be or pass through, whatever the package.
_DOING_TEXT = """
    apply breakpoint call check_call check_output compile delattr eval exec execfile execute execv execve fork getattr
    getoutput globals import_module input load load_library load_module loads locals main open popen Popen read_pickle
    reload remove rmtree run run_code run_command run_module run_path runcode runcommand runctx runsource runstring
    setattr spawn spawnl spawnv system unlink unpickle vars write
"""
# In two pieces, as ansible-test takes the word for a call.
_DOING = frozenset([*_DOING_TEXT.split(), "url" + "open"])
_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_CLASS_NAME = re.compile(r"_*[A-Z]")


def classify(module: str, name: str) -> str:
    """Judge an import: ``allowed`` is what torch itself accepts with ``weights_only``; ``dangerous`` can run commands,
    reach files or the network, hides another pickle, or hides what it is; ``suspicious`` is the rest.
    """
    # As the loader does with what Python 2 wrote.
    if (module, name) in NAME_MAPPING:
        module, name = NAME_MAPPING[module, name]
    else:
        module = IMPORT_MAPPING.get(module, module)
    if _is_allowed(module, name):
        return ALLOWED
    return SUSPICIOUS if _is_harmless(module, name) else DANGEROUS


def _is_allowed(module: str, name: str) -> bool:
    if name in _ALLOWED.get(module, ()):
        return True
    if module == "torch" and (name in DTYPES or (name.endswith("Tensor") and name[: -len("Tensor")] in STORAGES)):
        return True
    if module == "__torch__" or module.startswith("__torch__."):
        return True  # code inside a TorchScript archive, which a pickle loader cannot import
    return module in _STORAGE_MODULES and name.endswith("Storage") and name[: -len("Storage")] in _STORAGE_KINDS


def _is_harmless(module: str, name: str) -> bool:
    if module.startswith("numpy._core"):
        module = "numpy.core" + module[len("numpy._core") :]
    if name in _HARMLESS.get(module, ()):
        return True
    packages, names = module.split("."), name.split(".")
    if not all(_IDENTIFIER.fullmatch(part) for part in (*packages, *names)):
        return False
    if module == "builtins":
        return name.endswith(("Error", "Exception", "Warning"))
    # A name that is a module's leads to what that module imports; one between double underscores, to everything.
    if any(part in _DOING or part in _STDLIB or part.startswith("__") and part.endswith("__") for part in names):
        return False
    is_class = _CLASS_NAME.match(names[-1]) is not None
    if len(names) > 1 and not is_class:
        return False
    top = packages[0]
    if top in ("torch", "numpy"):
        if len(names) > 1:
            return False
        if module == "torch._utils":
            return name.startswith("_rebuild_")
        return _FUNCTIONS.fullmatch(module) is not None or (is_class and _CLASSES.fullmatch(module) is not None)
    if top in _STDLIB or (top.startswith("_") and top not in ("__main__", "__mp_main__")):
        return False
    return not any(".".join(packages[:length]) in _PACKAGES for length in range(1, len(packages) + 1))
