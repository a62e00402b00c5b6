# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The classes of attack that picklescan, fickling, modelscan and their advisories know, made anew: all are found in
every kind of file, and nothing of them runs.

Where a sample needs a command or code, it leaves a canary; one test loads a sample for real to prove that it would.
"""

from __future__ import annotations

import io
import lzma
import pathlib
import pickle
import struct
import subprocess
import sys
import tarfile
import zipfile
import zlib

import pytest
from ansible_collections.ringrift.recovery.plugins.module_utils._checkpoint import verify
from ansible_collections.ringrift.recovery.plugins.module_utils._npz import inspect
from ansible_collections.ringrift.recovery.plugins.module_utils._pickle_globals import (
    ALLOWED,
    DANGEROUS,
    SUSPICIOUS,
    classify,
)

from tests.unit.checkpoint_files import content, rezip, save

STOP = b"."


def text(value: str) -> bytes:
    raw = value.encode("utf-8", "surrogatepass")
    return b"X" + struct.pack("<I", len(raw)) + raw


def named(module: str, name: str) -> bytes:
    """STACK_GLOBAL, which also reaches dotted names."""
    return text(module) + text(name) + b"\x93"


def called(function: bytes, *args: bytes) -> bytes:
    return function + b"(" + b"".join(args) + b"tR"


def calls(module: str, name: str, *args: str) -> bytes:
    """A pickle that calls a function with texts."""
    return b"\x80\x04" + called(named(module, name), *map(text, args)) + STOP


def codes(report, severity=None) -> list:
    return [problem.code for problem in report.problems if severity in (None, problem.severity)]


def found(report) -> str:
    """What the report says would run."""
    return "\n".join(problem.message for problem in report.problems if problem.code == "dangerous_pickle")


@pytest.fixture
def trap(tmp_path):
    """A file that a sample would make, and the proof that none did."""
    canary = tmp_path / "canary"
    yield canary
    assert not canary.exists(), "something in the file was run"


def zipped(path: pathlib.Path, data: bytes) -> pathlib.Path:
    return rezip(save(path), {"data.pkl": data})


def legacy(path: pathlib.Path, data: bytes) -> pathlib.Path:
    parts = [pickle.dumps(value, 2) for value in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True})]
    path.write_bytes(b"".join([*parts, data, pickle.dumps([], 2)]))
    return path


def bare(path: pathlib.Path, data: bytes) -> pathlib.Path:
    path.write_bytes(data)
    return path


FORMS = {"zip": zipped, "legacy": legacy, "bare": bare}


def everywhere(tmp_path: pathlib.Path, data: bytes, expected: str) -> None:
    """As a member of a torch file, as a file of torch before 1.6, and on its own."""
    for form, write in FORMS.items():
        for depth in ("full", "quick"):
            report = verify(str(write(tmp_path / f"{form}.pth", data)), depth=depth)
            assert not report.valid, (form, depth)
            assert expected in found(report), (form, depth, report.problems)
            assert "dangerous_pickle" in codes(report, "error"), (form, depth)


# A name of each class that the tools list, most of them bypasses of a list that had all the ones before.
FUNCTIONS_TEXT = """
    os.system posix.system nt.system os.popen os.execv os.remove os.putenv os.path.os.system
    subprocess.Popen subprocess.run subprocess.check_output commands.getoutput popen2.popen3 _posixsubprocess.fork_exec
    pty.spawn multiprocessing.util.spawnv_passfds multiprocessing.process.Process concurrent.futures.ProcessPoolExecutor
    asyncio.unix_events._UnixSubprocessTransport._start asyncio.subprocess.create_subprocess_shell asyncio.run
    sys.exit sys.settrace sys.modules signal.signal threading.Thread _thread.start_new_thread atexit.register
    builtins.eval builtins.exec builtins.compile builtins.open builtins.getattr builtins.setattr builtins.__import__
    builtins.breakpoint builtins.globals builtins.input builtins.type builtins.map builtins.print builtins.memoryview
    builtins.eval.__call__ __builtin__.eval __builtin__.apply __builtin__.execfile __builtin__.file __builtin__.reduce
    __builtin__.getattr __builtins__.eval
    operator.attrgetter operator.methodcaller operator.itemgetter _operator.attrgetter _operator.methodcaller
    functools.partial functools.reduce functools.singledispatch _functools.partial
    types.CodeType types.FunctionType types.MethodType types.ModuleType types.LambdaType types.new_class
    importlib.import_module importlib.util.spec_from_file_location importlib.machinery.SourceFileLoader imp.load_source
    _frozen_importlib._load _frozen_importlib_external.SourceFileLoader _imp.create_dynamic pkgutil.resolve_name
    pkgutil.get_data zipimport.zipimporter runpy.run_path runpy._run_code runpy.run_module
    site.addsitedir site.execsitecustomize
    code.InteractiveInterpreter.runcode code.InteractiveInterpreter code.interact codeop.compile_command
    pdb.run pdb.Pdb bdb.Bdb.run bdb.Bdb cProfile.run cProfile.runctx profile.run profile.Profile.run
    profile.Profile.runctx timeit.timeit timeit.Timer trace.Trace.run trace.Trace.runctx doctest.debug_script
    doctest.testfile unittest.main unittest.mock._importer inspect.getattr_static inspect.unwrap
    pydoc.pipepager pydoc.locate pydoc.tempfilepager ast.parse dis.dis tabnanny.check modulefinder.ModuleFinder
    pickle.loads pickle.load pickle.Unpickler _pickle.loads cPickle.loads pickletools.dis marshal.loads shelve.open
    dbm.open copyreg.pickle copyreg.add_extension copyreg.dispatch_table copy_reg.extension copy.copy
    dill.loads dill._dill._create_function cloudpickle.cloudpickle._make_function cloudpickle.cloudpickle._builtin_type
    cloudpickle.cloudpickle.subimport joblib.load jsonpickle.decode yaml.load
    socket.create_connection socket.socket _socket.socket ssl.get_server_certificate _ssl.RAND_bytes
    http.client.HTTPSConnection httplib.HTTPSConnection
    urllib.request.urlopen urllib2.urlopen urllib.urlopen requests.get requests.api.get aiohttp.ClientSession
    aiohttp.client.ClientSession ftplib.FTP
    smtplib.SMTP imaplib.IMAP4_stream imaplib.IMAP4 poplib.POP3 nntplib.NNTP telnetlib.Telnet xmlrpc.client.ServerProxy
    socketserver.TCPServer webbrowser.open antigravity.geohash select.poll selectors.DefaultSelector syslog.syslog
    nis.cat
    shutil.rmtree shutil.copyfile tempfile.mkstemp glob.glob fileinput.input filecmp.cmp linecache.getline mmap.mmap
    tarfile.open zipfile.ZipFile gzip.open bz2.BZ2File lzma.open io.open io.FileIO io.open_code _io.FileIO _io.open
    codecs.open codecs.decode sqlite3.connect _sqlite3.connect pathlib.os.system pathlib.os logging.FileHandler
    logging.config.listen logging.config.dictConfig logging.handlers.SocketHandler configparser.RawConfigParser.read
    netrc.netrc mailbox.mbox csv.reader wave.open plistlib.load xml.etree.ElementTree.parse tokenize.open
    compileall.compile_dir py_compile.compile platform.popen platform._syscmd_file uuid._get_command_stdout
    uuid.getnode _osx_support._read_output _osx_support._find_build_tool _aix_support._read_cmd_output
    _pyrepl.pager.pipe_pager ctypes.CDLL ctypes.util._findLib_gcc _ctypes.dlopen cffi.FFI pipes.Template
    difflib.HtmlDiff gc.get_objects _interpreters.create _xxsubinterpreters.run_string _testcapi.run_in_subinterp
    collections.namedtuple collections._sys collections._sys.modules enum._make_class_unpicklable
    dataclasses.make_dataclass
    typing.get_type_hints string.Formatter.vformat datetime.sys datetime.sys.modules random._os.system weakref.finalize
    contextlib.ExitStack graphlib.TopologicalSorter.__init__.__globals__ json.codecs.builtins.eval
    pip.main pip._internal.main ensurepip._run_pip venv.create venv.EnvBuilder setuptools.setup
    distutils.file_util.write_file distutils.spawn.spawn lib2to3.pgen2.grammar.Grammar.loads
    lib2to3.pgen2.pgen.ParserGenerator.make_label idlelib.autocomplete.AutoComplete.get_entity
    idlelib.autocomplete.AutoComplete.fetch_completions idlelib.calltip.Calltip.fetch_tip idlelib.calltip.get_entity
    idlelib.debugobj.ObjectTreeItem.SetText idlelib.pyshell.ModifiedInterpreter.runcode
    idlelib.pyshell.ModifiedInterpreter.runcommand idlelib.run.Executive.runcode
    test.support.script_helper.assert_python_ok tkinter.Tk turtledemo.__main__.main rlcompleter.Completer
    torch.load torch.hub.load torch.serialization.load torch.serialization.os.system torch.storage._load_from_bytes
    torch._inductor.codecache.compile_file torch._dynamo.guards.GuardBuilder.get torch.compile
    torch.classes.load_library
    torch.ops.load_library torch.utils.bottleneck.__main__.run_cprofile
    torch.utils.bottleneck.__main__.run_autograd_prof
    torch.utils.collect_env.run torch.utils.collect_env.run_and_read_all
    torch.utils._config_module.ConfigModule.load_config
    torch.utils.data.datapipes.utils.decoder.basichandlers torch.utils.cpp_extension.load torch.utils.model_zoo.load_url
    torch.fx.experimental.symbolic_shapes.ShapeEnv.evaluate_guards_expression torch.fx.graph_module.reduce_graph_module
    torch.jit.unsupported_tensor_ops.execWrapper torch.jit.load torch.jit.CompilationUnit torch.package.PackageImporter
    torch.PyTorchFileWriter torch.from_file torch.FloatStorage.from_file torch._C.PyTorchFileReader torch.save
    torch.distributed.FileStore torch.distributed.elastic.rendezvous.api.basichandlers torch.multiprocessing.spawn
    torch.nn.functional.importlib torch.nn.Module.load_state_dict.__globals__ torch._utils.sys
    numpy.load numpy.fromfile numpy.memmap numpy.save numpy.savetxt numpy.genfromtxt numpy.DataSource numpy.__builtins__
    numpy.f2py.crackfortran.getlincoef numpy.f2py.crackfortran._eval_length numpy.f2py.diagnose.run
    numpy.testing._private.utils.runstring numpy.distutils.exec_command.exec_command numpy.ctypeslib.load_library
    numpy.lib.npyio.load numpy.core.multiarray.fromfile numpy.os.system numpy.sys
    pandas.read_pickle pandas.io.pickle.read_pickle pandas.eval pandas.core.computation.eval.eval
    tensorflow.io.write_file keras.models.load_model sympy.sympify numexpr.evaluate six.moves.builtins.exec
    six.moves.cPickle.loads past.builtins.execfile IPython.core.magics.execution.run pexpect.spawn paramiko.SSHClient
    fickling.hook.remove_hook picklescan.scanner.scan_pickle_bytes modelscan.settings.DEFAULT_SETTINGS
    modelaudit.core.scan app.training.os.system app.training.subprocess app.training.Model.__init__
    app.training.Model.forward.__globals__ app.tools.run app.io.load __main__.__builtins__ __main__.sys
"""
FUNCTIONS = tuple(FUNCTIONS_TEXT.split())


def halves(path: str) -> tuple:
    """Every way to cut a dotted path into a module and a name, as an attacker may."""
    parts = path.split(".")
    return tuple((".".join(parts[:cut]), ".".join(parts[cut:])) for cut in range(1, len(parts)))


@pytest.mark.parametrize("path", FUNCTIONS)
def test_name_is_dangerous_however_it_is_cut(path):
    for module, name in halves(path):
        assert classify(module, name) == DANGEROUS, (module, name)


def test_all_the_names_are_found_in_a_file(tmp_path, trap):
    """One after the other in one pickle, and the first of each module in a pickle of its own."""
    for form, write in FORMS.items():
        for path in FUNCTIONS[::7]:
            module, _dot, name = path.rpartition(".")
            report = verify(str(write(tmp_path / f"{form}.pth", calls(module, name, f"touch {trap}"))), depth="quick")
            assert path in found(report), (form, path)


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("os ", "system"),
        (" os", "system"),
        ("os\t", "system"),
        ("os\x00", "system"),
        ("os", "system "),
        ("os.", "system"),
        ("", "os.system"),
        ("os", ""),
        ("ｏｓ", "system"),  # full-width letters
        ("оs", "system"),  # a Cyrillic letter
        ("torch\n", "Size"),
        ("torch", "Size.__class__"),
        ("collections", "OrderedDict.__init__"),
        ("collections", "OrderedDict\u200b"),
        ("app.training", "eval"),
        ("app.training", "Model.forward"),
        ("app/training", "Model"),
        ("builtins", "Error.mro"),
        ("__torch__x", "Model"),
        ("torch.storage", "xStorage"),
    ],
)
def test_name_that_hides_what_it_is(module, name):
    assert classify(module, name) == DANGEROUS


HARMLESS_TEXT = """
    app.training.config.TrainConfig app.models.HexNeuralNet_v4 app.types.Enums.Kind __main__.Config argparse.Namespace
    numpy.dtype numpy.ndarray numpy.float64 numpy.core.multiarray._reconstruct numpy._core.multiarray.scalar
    numpy.dtypes.Float64DType numpy.random._pickle.__generator_ctor numpy.random._pcg64.PCG64 pathlib.PosixPath
    pathlib._local.PosixPath types.SimpleNamespace datetime.datetime datetime.timezone
    decimal.Decimal fractions.Fraction
    collections.defaultdict collections.deque uuid.UUID copyreg._reconstructor copy_reg._reconstructor
    builtins.frozenset builtins.object builtins.ValueError __builtin__.xrange __builtin__.long exceptions.KeyError
    torch.nn.modules.linear.Linear torch.nn.functional.relu torch._C._nn.gelu torch.optim.lr_scheduler.StepLR
    torch.amp.grad_scaler.GradScaler torch.dtype torch.memory_format torch._utils._rebuild_xla_tensor
    torch.utils.data.dataset.Subset _io.BytesIO re._compile logging.getLogger scipy.sparse._csr.csr_matrix
    pandas.core.frame.DataFrame sklearn.preprocessing._label.LabelEncoder transformers.training_args.TrainingArguments
"""


@pytest.mark.parametrize("path", HARMLESS_TEXT.split())
def test_what_checkpoints_of_others_hold_is_no_alarm(path):
    module, _dot, name = path.rpartition(".")
    if path == "app.types.Enums.Kind":
        module, name = "app.types", "Enums.Kind"
    assert classify(module, name) == SUSPICIOUS


def test_unknown_class_leaves_a_checkpoint_valid(tmp_path):
    data = pickle.dumps({"epoch": 1}, 2)[:-1] + b"capp.training\nState\n0."
    report = verify(str(zipped(tmp_path / "c.pth", data.replace(b"\x80\x02", b"\x80\x02", 1))))
    assert "dangerous_pickle" not in codes(report)
    assert "unknown_globals" in codes(report, "warning")


def test_torch_names_stay_allowed():
    assert classify("torch._utils", "_rebuild_tensor_v2") == ALLOWED
    assert classify("torch", "FloatStorage") == ALLOWED
    assert classify("__builtin__", "set") == ALLOWED


# Ways to reach a name, and places to hide one.


def nested(inner: bytes) -> bytes:
    return b"B" + struct.pack("<I", len(inner)) + inner


SYSTEM = b"cposix\nsystem\n"


def sample(command: str, form: str) -> bytes:
    """A pickle of protocol 0 to 5 that runs a command in one of many ways."""
    argument = text(command)
    escaped = "".join(f"\\u{ord(char):04x}" for char in "posix")
    samples = {
        "global_reduce": SYSTEM + argument + b"\x85R.",
        "protocol_0": b"cos\nsystem\n(S'" + command.encode() + b"'\ntR.",
        "stack_global": calls("posix", "system", command),
        "inst": b"(S'" + command.encode() + b"'\niposix\nsystem\n.",
        "obj": b"(" + SYSTEM + argument + b"o.",
        "newobj": b"\x80\x02" + SYSTEM + argument + b"\x85\x81.",
        "newobj_ex": b"\x80\x04" + SYSTEM + argument + b"\x85}\x92.",
        "memoized_names": b"\x80\x04"
        + text("system")
        + b"\x94"
        + text("posix")
        + b"\x940"
        + b"0h\x01h\x00\x93"
        + argument
        + b"\x85R.",
        "put_out_of_order": b"Vposix\np2\n0Vsystem\np3\n0Vtorch\np0\n0VLongStorage\np1\n0g2\ng3\n\x93(V"
        + command.encode()
        + b"\ntR.",
        "long_binput": b"\x80\x04"
        + text("posix")
        + b"r\x00\x00\x01\x000"
        + text("system")
        + b"q\x070j\x00\x00\x01\x00h\x07\x93"
        + argument
        + b"\x85R.",
        "names_as_bytes_strings": b"S'posix'\nS'system'\n\x93" + argument + b"\x85R.",
        "names_as_short_binstrings": b"U\x05posixU\x06system\x93" + argument + b"\x85R.",
        "escaped_unicode": b"V" + escaped.encode() + b"\nVsystem\n\x93" + argument + b"\x85R.",
        "escaped_string": b"S'\\x70osix'\nS'sy\\163tem'\n\x93" + argument + b"\x85R.",
        "text_of_eight_bytes_length": b"\x80\x04\x8d"
        + struct.pack("<Q", 5)
        + b"posix"
        + text("system")
        + b"\x93"
        + argument
        + b"\x85R.",
        "duplicated": b"\x80\x04" + text("posix") + text("system") + b"20\x93" + argument + b"\x85R.",
        "after_pop": b"N0(1" + SYSTEM + argument + b"\x85R.",
        "result_dropped": SYSTEM + argument + b"\x85R0}.",
        "obj_result_dropped": b"(" + SYSTEM + argument + b"o0}.",
        "dropped_with_a_mark": b"(" + SYSTEM + argument + b"\x85R1}.",
        "in_a_key": b"}" + SYSTEM + argument + b"\x85RNs.",
        "in_build": b"capp\nModel\n)\x81}" + text("x") + SYSTEM + argument + b"\x85Rsb.",
        "setstate_of_a_function": b"capp\nModel\n)\x81"
        + b"}"
        + text("__setstate__")
        + SYSTEM
        + b"sb"
        + argument
        + b"b.",
        "build_on_a_module": b"\x80\x04"
        + named("sys", "modules")
        + b"}"
        + text("os")
        + named("posix", "system")
        + b"sb.",
        "in_a_persistent_id": SYSTEM + argument + b"\x85RQ.",
        "extension_code": b"\x80\x02\x82\x01" + SYSTEM + argument + b"\x85R.",
        "frozen_in_frames": b"\x80\x04\x95" + struct.pack("<Q", len(SYSTEM)) + SYSTEM + argument + b"\x85R.",
        "two_protocols": b"\x80\x02\x80\x04\x80\x02" + SYSTEM + argument + b"\x85R.",
        "buffers": b"\x80\x05\x97\x980" + SYSTEM + argument + b"\x85R.",
        "getattr_chain": b"\x80\x04"
        + called(
            called(
                named("builtins", "getattr"), called(named("builtins", "__import__"), text("posix")), text("system")
            ),
            argument,
        )
        + STOP,
        "attrgetter_chain": b"\x80\x04"
        + called(
            called(
                called(named("operator", "attrgetter"), text("system")),
                called(named("builtins", "__import__"), text("posix")),
            ),
            argument,
        )
        + STOP,
        "methodcaller_of_located": b"\x80\x04"
        + called(
            called(named("operator", "methodcaller"), text("system"), argument),
            called(named("pydoc", "locate"), text("posix")),
        )
        + STOP,
        "partial": b"\x80\x04"
        + called(called(named("functools", "partial"), named("posix", "system"), argument))
        + STOP,
        "map": b"\x80\x04"
        + called(
            named("builtins", "list"), called(named("builtins", "map"), named("posix", "system"), argument + b"\x85")
        )
        + STOP,
        "default_factory": b"\x80\x04" + called(named("collections", "defaultdict"), named("posix", "system")) + STOP,
        "wrapped_in_allowed": b"\x80\x04"
        + called(
            named("torch._tensor", "_rebuild_from_type_v2"), SYSTEM, named("torch", "Tensor"), argument + b"\x85", b"}"
        )
        + STOP,
        "nested": b"\x80\x04" + called(named("pickle", "loads"), nested(SYSTEM + argument + b"\x85R.")) + STOP,
        "nested_in_torch": b"\x80\x04"
        + called(named("torch.storage", "_load_from_bytes"), nested(SYSTEM + argument + b"\x85R."))
        + STOP,
        "nested_in_decode": b"\x80\x04"
        + called(named("_pickle", "loads"), called(named("codecs", "decode"), text("cposix\nsystem\n"), text("rot13")))
        + STOP,
    }
    return samples[form]


SAMPLE_NAMES = {
    "protocol_0": "os.system",
    "build_on_a_module": "sys.modules",
    "extension_code": "copyreg extension 1",
    "getattr_chain": "builtins.getattr",
    "attrgetter_chain": "operator.attrgetter",
    "methodcaller_of_located": "pydoc.locate",
    "nested": "pickle.loads",
    "nested_in_torch": "torch.storage._load_from_bytes",
    "nested_in_decode": "codecs.decode",
}
SAMPLES = (
    *("global_reduce", "protocol_0", "stack_global", "inst", "obj", "newobj", "newobj_ex", "memoized_names"),
    *("put_out_of_order", "long_binput", "names_as_bytes_strings", "names_as_short_binstrings", "escaped_unicode"),
    *("escaped_string", "text_of_eight_bytes_length", "duplicated", "after_pop", "result_dropped"),
    *("obj_result_dropped", "dropped_with_a_mark", "in_a_key", "in_build", "setstate_of_a_function"),
    *("build_on_a_module", "in_a_persistent_id", "extension_code", "frozen_in_frames", "two_protocols", "buffers"),
    *("getattr_chain", "attrgetter_chain", "methodcaller_of_located", "partial", "map", "default_factory"),
    *("wrapped_in_allowed", "nested", "nested_in_torch", "nested_in_decode"),
)


@pytest.mark.parametrize("form", SAMPLES)
def test_way_to_run_a_command(tmp_path, trap, form):
    everywhere(tmp_path, sample(f"touch {trap}", form), SAMPLE_NAMES.get(form, "posix.system"))


@pytest.mark.parametrize(
    "form",
    [
        *("global_reduce", "stack_global", "inst", "memoized_names", "put_out_of_order", "long_binput"),
        *(
            "names_as_bytes_strings",
            "escaped_unicode",
            "escaped_string",
            "obj",
            "result_dropped",
            "dropped_with_a_mark",
        ),
        *("setstate_of_a_function", "getattr_chain", "attrgetter_chain", "methodcaller_of_located", "partial", "map"),
        *("nested", "frozen_in_frames", "text_of_eight_bytes_length"),
    ],
)
def test_sample_would_run_in_a_loader(tmp_path, form):
    """So that the canary of the other tests means something."""
    canary = tmp_path / "canary"
    path = bare(tmp_path / "sample", sample(f"touch {canary}", form))
    prelude = (
        "import sys, types; sys.modules['app'] = app = types.ModuleType('app'); app.Model = type('Model', (), {})\n"
    )
    load = "import pickle\ntry:\n    pickle.load(open(sys.argv[1], 'rb'))\nexcept Exception:\n    pass\n"
    subprocess.run([sys.executable, "-c", prelude + load, str(path)], check=True, timeout=60, stderr=subprocess.DEVNULL)
    assert canary.exists()


@pytest.mark.parametrize(
    ("tail", "why"),
    [
        (b"\xff", "an opcode that does not exist"),
        (b"", "nothing more"),
        (b"X\xff\xff\xff\x7fabc", "a text that is cut off"),
        (b"I12x\n", "a number that is none"),
        (b"V\\u12\n", "a text with a broken escape"),
        (b"cmod\n\xf8\n.", "a name that is not UTF-8"),
        (b"S'x\n.", "quotes that do not fit"),
        (b"h\x63.", "a memo that is not there"),
        (b"\x80\x63.", "a protocol that does not exist"),
        (b"0000.", "an empty stack"),
        (b"K\x2a\x94h\x00h\x00\x93.", "names that are numbers"),
        (b"tRX.", "a text in place of the end"),
        (b"\x8c\x08os.syste\x00", "an argument that ends too early"),
    ],
)
def test_broken_tail_does_not_hide_what_came_before(tmp_path, trap, tail, why):
    data = b"\x80\x04" + SYSTEM + text(f"touch {trap}") + b"\x85R0" + tail
    everywhere(tmp_path, data, "posix.system")


def test_names_that_cannot_be_known_are_dangerous(tmp_path, trap):
    """Made by a call at load time, so that no reader can tell what will be imported."""
    made = called(named("_codecs", "encode"), text("cbfvk"), text("rot13"))
    everywhere(
        tmp_path, b"\x80\x04" + made + text("system") + b"\x93" + text(f"touch {trap}") + b"\x85R.", "<computed>"
    )
    everywhere(tmp_path, b"\x80\x04K\x2aX\x02\x00\x00\x00os\x93.", "<computed>")


def framed(length: int, data: bytes) -> bytes:
    return b"\x80\x04\x95" + struct.pack("<Q", length) + data


def two_readings(trap: pathlib.Path) -> bytes:
    """A text reaches beyond its frame: pickle.load drops what the frame has of it and reads it anew behind the frame.

    So it comes out two bytes further on, inside what looks like a byte string.
    """
    command = f"touch {trap}".encode()
    hidden = SYSTEM + b"\x8c" + bytes([len(command)]) + command + b"\x85R."
    return framed(4, b"\x8c\x0aN0" + b"N0N0N0N0" + b"C" + bytes([len(hidden)]) + hidden + b"0.")


def test_argument_beyond_the_end_of_its_frame(tmp_path, trap):
    for data in (
        two_readings(trap),
        framed(4, b"cmacos\nsystem\n."),
        framed(7, b"cos\nsystem\n."),
        framed(5, b"Vhello world\n."),
        framed(2, b"J\x07\0\0\0."),
        framed(30, b"N\x95" + struct.pack("<Q", 2) + b"N0."),
    ):
        path = tmp_path / "c.pth"
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("c/data.pkl", data)
            archive.writestr("c/version", b"3\n")
        for checked in (path, legacy(tmp_path / "legacy.pth", data)):
            report = verify(str(checked))
            assert {"pickle_damaged", "dangerous_pickle"} & set(codes(report, "error")), data


def test_argument_beyond_the_end_of_its_frame_would_run(tmp_path):
    canary = tmp_path / "canary"
    path = bare(tmp_path / "sample", two_readings(canary))
    # As torch reads data.pkl.
    code = "import io, pickle, sys\npickle.load(io.BytesIO(open(sys.argv[1], 'rb').read()))\n"
    subprocess.run([sys.executable, "-c", code, str(path)], check=True, timeout=60)
    assert canary.exists()


@pytest.mark.parametrize(
    "value",
    [
        [1, "x" * 70_000, 2],
        [1, "x" * 70_000, b"y" * 70_000, 2],
        list(range(100_000)),
        {"a": [{"b": (1, 2)}]},
        b"x" * 200_000,
    ],
)
@pytest.mark.parametrize("protocol", [4, 5])
def test_frames_as_python_writes_them_are_no_alarm(tmp_path, value, protocol):
    report = verify(str(legacy(tmp_path / "c.pth", pickle.dumps(value, protocol))))
    assert report.valid, report.problems


class TestPlaces:
    def evil(self, trap) -> bytes:
        return b"\x80\x02" + SYSTEM + text(f"touch {trap}") + b"\x85R."

    def test_each_pickle_of_a_legacy_file(self, tmp_path, trap):
        parts = [pickle.dumps(value, 2) for value in (0x1950A86A20F9469CFC6C, 1001, {}, {}, [])]
        for index in range(5):
            data = b"".join([*parts[:index], self.evil(trap), *parts[index + 1 :]])
            report = verify(str(bare(tmp_path / "c.pth", data)))
            assert "posix.system" in found(report), index

    def test_magic_number_that_is_computed(self, tmp_path, trap):
        number = b"\x80\x02c__builtin__\neval\n" + text("0x1950A86A20F9469CFC6C") + b"\x85R."
        parts = [pickle.dumps(value, 2) for value in (1001, {}, [])]
        data = b"".join([number, *parts, self.evil(trap), pickle.dumps(None, 2)])
        assert "__builtin__.eval" in found(verify(str(bare(tmp_path / "c.pth", data))))

    def test_second_pickle_in_a_row(self, tmp_path, trap):
        data = pickle.dumps(["a", "b"], 2) + self.evil(trap)
        assert "posix.system" in found(verify(str(bare(tmp_path / "c.pth", data))))
        # torch reads the first one of a member only; that something follows is told.
        report = verify(str(zipped(tmp_path / "c.pth", pickle.dumps({"epoch": 1}, 2) + self.evil(trap))))
        assert "trailing_data" in codes(report) or "posix.system" in found(report)

    def test_another_member_of_the_container(self, tmp_path, trap):
        for name in ("extra/evil.pkl", "evil.pkl", "evil.pickle"):
            report = verify(str(rezip(save(tmp_path / "c.pth"), {name: self.evil(trap)})))
            assert any(problem.member == f"c/{name}" for problem in report.problems), name

    def test_container_with_two_tops(self, tmp_path, trap):
        path = save(tmp_path / "c.pth")
        with zipfile.ZipFile(path, "a") as archive:
            archive.writestr("other/data.pkl", self.evil(trap))
        assert any(problem.member == "other/data.pkl" for problem in verify(str(path)).problems)

    def test_constants_of_a_script(self, tmp_path, trap):
        report = verify(str(rezip(save(tmp_path / "c.pth"), {"constants.pkl": self.evil(trap)})))
        assert "posix.system" in found(report)

    def test_compressed_pickle(self, tmp_path, trap):
        path = tmp_path / "c.pth"
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("c/data.pkl", self.evil(trap))
            archive.writestr("c/version", b"3\n")
        assert "posix.system" in found(verify(str(path)))

    def test_wrong_checksum_hides_nothing(self, tmp_path, trap):
        """torch does not compare checksums, so this one would run."""
        path = zipped(tmp_path / "c.pth", self.evil(trap))
        raw = path.read_bytes()
        crc = struct.pack("<I", zlib.crc32(self.evil(trap)))
        assert raw.count(crc) == 2
        path.write_bytes(raw.replace(crc, b"abcd"))
        report = verify(str(path))
        assert "posix.system" in found(report)
        assert "crc_mismatch" in codes(report)

    @pytest.mark.parametrize(
        "name", ["model.bin", "model.pt", "model.png", "model", "model.pth.txt", "model.safetensors"]
    )
    def test_the_name_of_the_file_means_nothing(self, tmp_path, trap, name):
        assert "posix.system" in found(verify(str(bare(tmp_path / name, self.evil(trap)))))

    def test_lower_and_upper_case_of_data_pkl(self, tmp_path, trap):
        """torch takes either for the other."""
        path = tmp_path / "c.pth"
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("c/DATA.PKL", self.evil(trap))
            archive.writestr("c/data.pkl", pickle.dumps({"epoch": 1}, 2))
            archive.writestr("c/version", b"3\n")
        assert "duplicate_member" in codes(verify(str(path)), "error")
        assert "posix" in read_by_torch(path, "data.pkl").decode("latin-1")

    def test_containers_that_are_not_torch(self, tmp_path, trap):
        evil = self.evil(trap)
        tar = io.BytesIO()
        with tarfile.open(fileobj=tar, mode="w") as archive:
            info = tarfile.TarInfo("pickle")
            info.size = len(evil)
            archive.addfile(info, io.BytesIO(evil))
        inner = io.BytesIO()
        with zipfile.ZipFile(inner, "w") as archive:
            archive.writestr("data.pkl", evil)
        outer = io.BytesIO()
        with zipfile.ZipFile(outer, "w") as archive:
            archive.writestr("inner.zip", inner.getvalue())
        for data in (
            b"7z\xbc\xaf\x27\x1c" + evil,
            zlib.compress(evil),
            b"\x1f\x8b" + zlib.compress(evil),
            lzma.compress(evil),
            tar.getvalue(),
            inner.getvalue(),
            outer.getvalue(),
            b"\x89PNG\r\n\x1a\n" + evil,
            b"\x93NUMPY\x01\x00" + evil,
            b"cmod\n\xf8\n" + evil,
        ):
            report = verify(str(bare(tmp_path / "c.pth", data)))
            assert not report.valid
            assert codes(report, "error"), data[:8]

    def test_object_array(self, tmp_path, trap):
        header = b"{'descr': '|O', 'fortran_order': False, 'shape': (1,), }"
        header += b" " * (-(10 + len(header) + 1) % 64) + b"\n"
        array = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + self.evil(trap)
        path = tmp_path / "c.npz"
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("features.npy", array)
            archive.writestr("values.npy", array)
        for depth in ("quick", "full"):
            report = inspect(str(path), depth=depth)
            assert not report.valid
            assert all(info.object for info in report.arrays)

    def test_real_checkpoint_with_a_payload_before_and_behind_its_tensors(self, tmp_path, trap):
        path = save(tmp_path / "c.pth", content(metadata=True))
        with zipfile.ZipFile(path) as archive:
            data = archive.read("c/data.pkl")
        payload = SYSTEM + text(f"touch {trap}") + b"\x85R0"
        for changed in (data[:2] + payload + data[2:], data[:-1] + payload + data[-1:]):
            report = verify(str(rezip(save(path, content(metadata=True)), {"data.pkl": changed})))
            assert "posix.system" in found(report)
            assert report.epoch == 3


def read_by_torch(path: pathlib.Path, record: str) -> bytes:
    import torch

    return torch._C.PyTorchFileReader(str(path)).get_record(record)
