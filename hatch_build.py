"""Compile the native code where the package is built or installed and a compiler is found.

``SKLEARN_DIN_NATIVE=0`` leaves it out too: that wheel is for every platform. With
``SKLEARN_DIN_PLATFORM`` a wheel is named by that platform in place of this machine's.
"""

import os
import runpy
from pathlib import Path

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

FOLDER = "sklearn_din/native"


class CompileNative(BuildHookInterface):
    """Add the shared library to a wheel, or put it beside the sources of an editable install."""

    def initialize(self, version, build_data):
        """Compile, as hatchling asks before it collects files."""
        build = runpy.run_path(Path(self.root, FOLDER, "build.py"))
        if self.target_name != "wheel" or os.environ.get("SKLEARN_DIN_NATIVE") == "0":
            return
        if not build["find_compiler"]():
            without = "No C++ compiler: networks will be computed by torch alone."
            self.app.display_warning(f"{without} {build['compiler_advice']()}")
            return
        is_editable = version == "editable"
        name = build["library_name"]()
        library = Path(self.root, FOLDER if is_editable else "build/native", name)
        try:
            build["compile_library"](library)
        except OSError as error:
            self.app.display_warning(f"The native code was not compiled: {error}")
            failure = library.with_name(build["FAILURE"])
            if not is_editable and failure.exists():  # summary() says it
                build_data["force_include"][str(failure)] = f"{FOLDER}/{failure.name}"
            return
        if not is_editable:
            build_data["pure_python"] = False
            build_data["tag"] = f"py3-none-{build['wheel_platform']()}"
            build_data["force_include"][str(library)] = f"{FOLDER}/{name}"
