"""What a release says of itself agrees: version, changelog, citation, Pythons that CI runs."""

import re
import tomllib
from pathlib import Path

import pytest

import sklearn_din

pytestmark = pytest.mark.slow

HOUSE = Path(__file__).resolve().parents[1]


def read(name):
    return (HOUSE / name).read_text(encoding="utf-8")


def test_the_newest_numbered_entry_of_the_changelog_is_the_version():
    newest, *older = re.findall(r"^## (\S+)$", read("CHANGELOG.md"), re.M)
    version = older[0] if newest == "Unreleased" else newest
    assert version == sklearn_din.__version__
    assert "Unreleased" not in older


def test_the_version_is_that_of_project_and_citation():
    assert f'version = "{sklearn_din.__version__}"' in read("pyproject.toml")
    assert f"version: {sklearn_din.__version__}\n" in read("CITATION.cff")


def test_continuous_integration_starts_at_the_oldest_python_and_pins_its_actions():
    names = "ci", "proofs", "release"
    workflow, *others = (read(f".github/workflows/{name}.yml") for name in names)
    [oldest] = re.findall(r'requires-python = ">=(.+)"', read("pyproject.toml"))
    [newest] = re.findall(rf'python: \["{oldest}", "3\.(\d+)"\]', workflow)
    assert int(newest) >= 12  # which the newest numpy needs
    said = re.findall(r'"Programming Language :: Python :: 3\.(\d+)"', read("pyproject.toml"))
    assert list(map(int, said)) == [*range(int(oldest.removeprefix("3.")), int(newest) + 1)]
    actions = re.findall(r"uses: (\S+)", "".join([workflow, *others]))
    assert actions
    assert all(re.fullmatch(r"[\w/-]+@[0-9a-f]{40}", action) for action in actions)


def test_wheels_are_compiled_as_by_make_where_they_are_loaded():
    workflow, makefile = read(".github/workflows/ci.yml"), read("Makefile")
    pairs = re.findall(r"platform: (\w+), target: ([\w-]+)", workflow)
    assert {platform[:3] for platform, _ in pairs} == {"mac", "win"}
    assert all(f"{platform}={target}" in makefile for platform, target in pairs)
    assert "run: make proofs" in read(".github/workflows/proofs.yml")


def test_a_tag_publishes_every_wheel_without_a_token_once_all_are_loaded_and_tested():
    workflow = read(".github/workflows/release.yml")
    _, jobs = workflow.split("\njobs:\n")
    build, publish = jobs.split("  publish:\n")
    assert 'tags: ["v*"]' in workflow
    assert "needs: [sources, wheels]" in publish
    assert "if: github.ref_type == 'tag'" in publish
    assert "id-token: write" in publish
    assert "id-token" not in build  # what builds cannot publish
    assert "environment: pypi" in publish
    assert "attestations: true" in publish
    assert "secrets." not in workflow
    project = tomllib.loads(read("pyproject.toml"))
    wheels, classifiers = project["tool"]["cibuildwheel"], project["project"]["classifiers"]
    assert wheels["test-command"].endswith("tests/wheel.py {project}/README.md")
    systems = {"ubuntu": "POSIX :: Linux", "macos": "MacOS", "windows": "Microsoft :: Windows"}
    for machine, system in systems.items():
        assert re.search(rf"machine: \[.*\b{machine}-", build)
        assert f"Operating System :: {system}" in classifiers


def test_the_lock_file_names_every_direct_dependency_and_no_registry():
    lock = read("requirements-dev.lock")
    assert "://" not in lock
    assert "index" not in lock
    pinned = set(re.findall(r"^([\w.-]+)==", lock, re.M))
    project = tomllib.loads(read("pyproject.toml"))["project"]
    extras = project["optional-dependencies"]
    wanted = [*project["dependencies"], *extras["test"], *extras["docs"], *extras["release"]]
    names = {re.match(r"[\w.-]+", name)[0] for name in wanted if "sklearn-din[" not in name}
    assert names <= pinned


def test_every_dependency_has_a_lower_bound_that_the_workflow_tests():
    project = tomllib.loads(read("pyproject.toml"))["project"]
    extras = project["optional-dependencies"].values()
    needed = [*project["dependencies"], *(name for extra in extras for name in extra)]
    assert all(">=" in name or "sklearn-din[" in name for name in needed)
    assert "run: make test-oldest" in read(".github/workflows/ci.yml")
