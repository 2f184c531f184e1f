"""Compile the native code: ``python -m sklearn_din.native.build [FILE]``, beside this file.

hatch_build.py does it where the package is built or installed; nothing of the package is imported
here. The compiler is ``CXX``, else the system's ``c++``; it may be several words
(``CXX="python -m ziglang c++ -target x86_64-linux-gnu.2.17"``), and ``CXXFLAGS`` adds some.
"""

import hashlib
import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

FOLDER = Path(__file__).parent
FAILURE = "failure.txt"  # beside where the library would be: why it could not be compiled
SUFFIXES = {"win": ".dll", "mac": ".dylib"}  # by the first letters of a platform
# -ffast-math is not among them: losses that are no longer numbers must be found.
FLAGS = ["-O3", "-std=c++17", "-fno-math-errno", "-fvisibility=hidden", "-pthread", "-Wno-psabi"]
GET_COMPILER = {
    "win": '"pip install ziglang", then "set CXX=python -m ziglang c++" ("$env:CXX = \'python -m '
    "ziglang c++'\" in PowerShell); MSVC's cl does not take these options",
    "mac": '"xcode-select --install"',
    "lin": '"apt install g++", "dnf install gcc-c++", or "pip install ziglang" and "export '
    "CXX='python -m ziglang c++'\"",
}  # by the first letters of a platform
X86_KERNELS = {"avx2": ["-mavx2", "-mfma"], "avx512": ["-mavx512f", "-mavx2", "-mfma"]}


def platform_name() -> str:
    """Return what is compiled for: ``SKLEARN_DIN_PLATFORM``, or this machine's platform."""
    return os.environ.get("SKLEARN_DIN_PLATFORM") or sysconfig.get_platform()


def wheel_platform() -> str:
    """Return the platform in a wheel's name: of a Python of several machines, the compiled one."""
    name = platform_name()
    if name.endswith("universal2"):
        machine = target_machine()
        name = "macosx-11.0-arm64" if machine == "arm64" else name.replace("universal2", machine)
    return name.replace("-", "_").replace(".", "_")


def library_name() -> str:
    """Return the file name of that platform's library."""
    return f"din{SUFFIXES.get(platform_name()[:3], '.so')}"


def digest_of_sources() -> str:
    """Return a fingerprint of the sources that lie here."""
    files = sorted((*FOLDER.glob("*.h"), *FOLDER.glob("*.cpp")))
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


def find_compiler() -> list[str]:
    """Return the command of the compiler with ``CXXFLAGS``; empty where there is none."""
    command = shlex.split(os.environ.get("CXX", "c++"))
    is_there = command and shutil.which(command[0])
    return [*command, *shlex.split(os.environ.get("CXXFLAGS", ""))] if is_there else []


def compiler_advice() -> str:
    """Return how to get a compiler for this platform."""
    how = GET_COMPILER.get(platform_name()[:3], "GCC or Clang")
    return f"To get a C++ compiler: {how}."


def target_machine() -> str:
    """Return the machine that the compiler compiles for, such as x86_64."""
    asked = subprocess.run([*find_compiler(), "-dumpmachine"], capture_output=True, text=True)
    return asked.stdout.partition("-")[0]


def compile_library(target: Path) -> None:
    """Compile the kernels for each kind of processor, and link them; OSError if refused."""
    target.parent.mkdir(parents=True, exist_ok=True)
    failure = target.with_name(FAILURE)
    compiler = [*find_compiler(), *FLAGS]
    if not platform_name().startswith("win"):  # where all code may lie anywhere
        compiler.append("-fPIC")
    kernels: dict[str, list[str]] = {"plain": []}
    kernels |= X86_KERNELS if target_machine() == "x86_64" else {}
    with tempfile.TemporaryDirectory() as folder:
        objects = [f"{folder}/{name}.o" for name in kernels]
        for (name, flags), to in zip(kernels.items(), objects, strict=True):
            options = [*flags, f"-DKERNEL={name}_kernel", "-c", "step.cpp", "-o", to]
            _run([*compiler, *options], failure)
        linked = f"{folder}/{target.name}"
        options = [f'-DSOURCES="{digest_of_sources()}"', "-s", "-shared", "library.cpp", *objects]
        exact = "-ffp-contract=off"  # numbers of item pairs have numpy's bits
        _run([*compiler, exact, *options, "-o", linked], failure)
        # Copied under another name first: a process may have the earlier library open.
        shutil.copy(linked, target.with_suffix(".new"))
        target.with_suffix(".new").replace(target)
    failure.unlink(missing_ok=True)


def _run(command: list[str], failure: Path) -> None:
    done = subprocess.run(command, cwd=FOLDER, stderr=subprocess.PIPE, text=True)
    sys.stderr.write(done.stderr)
    if done.returncode:
        errors = [line for line in done.stderr.splitlines() if "error" in line]
        reason = errors[0] if errors else f"{command[0]} ended with status {done.returncode}"
        if platform_name().startswith("win"):  # where a compiler is often of another kind
            reason = f"{reason}. {compiler_advice()}"
        failure.write_text(reason, encoding="utf-8")
        raise OSError(reason)


if __name__ == "__main__":
    if not find_compiler():
        sys.exit(f"No C++ compiler was found, and CXX names none. {compiler_advice()}")
    target = sys.argv[1] if sys.argv[1:] else FOLDER / library_name()
    compile_library(Path(target).resolve())
