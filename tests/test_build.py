"""The native code is compiled for what the compiler makes, and what went wrong is said."""

import runpy
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from sklearn_din import DINClassifier
from sklearn_din.native import build, structures
from sklearn_din.native_network import logits
from tests.encoded_impressions import make_impressions, make_labels

HOUSE = Path(__file__).resolve().parents[1]
COMPILER = """
import os, pathlib, sys
if "-dumpmachine" in sys.argv:
    sys.exit(print(os.environ["MACHINE"]))
if "-DKERNEL=plain_kernel" in sys.argv and os.environ.get("REFUSES"):
    print("In file included from step.cpp:", file=sys.stderr)
    sys.exit("step.h:1:2: error: a newer compiler is needed")
target = sys.argv[sys.argv.index("-o") + 1]
linked = [name for name in sys.argv if name.endswith(".o") and name != target]
made = [pathlib.Path(name).read_text() for name in linked]
kernels = [option for option in sys.argv if option.startswith("-DKERNEL")]
pathlib.Path(target).write_text(" ".join(kernels + made))
"""


@pytest.fixture
def compiler(monkeypatch, tmp_path):
    """A compiler that writes down for which processors it was asked, on a Mac's Python."""
    (tmp_path / "compiler.py").write_text(COMPILER)
    monkeypatch.setenv("CXX", f"{sys.executable} {tmp_path / 'compiler.py'}")
    monkeypatch.setattr("sysconfig.get_platform", lambda: "macosx-10.13-universal2")
    return monkeypatch.setenv


@pytest.fixture
def hook(monkeypatch, tmp_path):
    """The hook of hatchling, which is not installed here."""
    names = ["hatchling", "builders", "hooks", "plugin", "interface"]
    for n in range(1, len(names) + 1):
        monkeypatch.setitem(sys.modules, ".".join(names[:n]), ModuleType(names[n - 1]))
    sys.modules[".".join(names)].BuildHookInterface = object
    hook = runpy.run_path(HOUSE / "hatch_build.py")["CompileNative"]()
    folder = tmp_path / "sklearn_din" / "native"
    folder.mkdir(parents=True)
    (folder / "build.py").write_text(Path(build.__file__).read_text())
    hook.root, hook.target_name, hook.warnings = tmp_path, "wheel", []
    hook.app = SimpleNamespace(display_warning=hook.warnings.append)
    return hook


@pytest.mark.parametrize(("triple", "platform", "is_x86"), [
    ("arm64-apple-darwin23.6.0", "macosx_11_0_arm64", False),
    ("x86_64-apple-darwin22.1.0", "macosx_10_13_x86_64", True),
])  # fmt: skip
def test_a_python_of_two_machines_gets_what_is_compiled(triple, platform, is_x86, compiler, hook):
    compiler("MACHINE", triple)
    data = {"force_include": {}}
    hook.initialize("standard", data)
    assert data["tag"] == f"py3-none-{platform}"
    [(library, inside)] = data["force_include"].items()
    assert inside == "sklearn_din/native/din.dylib"
    kernels = Path(library).read_text()
    assert "plain_kernel" in kernels
    assert ("avx2_kernel" in kernels, "avx512_kernel" in kernels) == (is_x86, is_x86)


def test_a_failed_compilation_says_why_in_the_summary(compiler, hook, monkeypatch, tmp_path):
    compiler("MACHINE", "arm64-apple-darwin23.6.0")
    compiler("REFUSES", "1")
    data = {"force_include": {}}
    hook.initialize("standard", data)
    why = "step.h:1:2: error: a newer compiler is needed"
    assert hook.warnings == [f"The native code was not compiled: {why}"]
    [(file, inside)] = data["force_include"].items()
    assert inside == "sklearn_din/native/failure.txt"
    X = make_impressions(20)
    model = DINClassifier(max_epochs=1, random_state=0).fit(X, make_labels(X))
    monkeypatch.setattr(logits, "load_library", lambda: None)
    monkeypatch.setenv(structures.WHICH, str(Path(file).with_name("din.dylib")))
    cure = 'then run "python -m sklearn_din.native.build": fits take about a quarter of the time'
    said = f"computed by: torch (the native code could not be compiled or loaded: {why}. Solve that"
    assert f"{said}, {cure})" in model.summary()
    compiler("REFUSES", "")
    build.compile_library(Path(file).with_name("din.dylib"))
    assert "or loaded: " in model.summary()  # what the system says of the file
    assert why not in model.summary()
    monkeypatch.setenv(structures.WHICH, str(tmp_path / "absent"))
    assert "is not compiled. Install a C++ compiler, then run" in model.summary()


@pytest.mark.parametrize(("platform", "advice"), [
    ("win-amd64", '"set CXX=python -m ziglang c++"'),
    ("macosx-11.0-arm64", '"xcode-select --install"'),
    ("linux-x86_64", '"apt install g++"'),
    ("freebsd-14", "GCC or Clang"),
])  # fmt: skip
def test_who_has_no_compiler_is_told_how_to_get_one(platform, advice, hook, monkeypatch):
    monkeypatch.setattr("sysconfig.get_platform", lambda: platform)
    monkeypatch.setenv("CXX", "no-such-compiler")
    hook.initialize("standard", {})
    [warning] = hook.warnings
    assert warning.startswith("No C++ compiler: networks will be computed by torch alone. To get")
    assert advice in warning


def test_a_compiler_of_windows_that_takes_other_options_is_said(compiler, tmp_path, monkeypatch):
    monkeypatch.setattr("sysconfig.get_platform", lambda: "win-amd64")
    compiler("MACHINE", "x86_64-pc-windows-msvc")
    compiler("REFUSES", "1")
    with pytest.raises(OSError, match=r"needed\. To get a C\+\+ compiler: \"pip install ziglang"):
        build.compile_library(tmp_path / "din.dll")
    assert "python -m ziglang" in (tmp_path / build.FAILURE).read_text()
