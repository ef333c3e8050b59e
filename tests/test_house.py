"""The house stands as it is drawn: floors, packages, no torch and no pickle at the user's."""

import ast
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
NOT_THE_PACKAGE = {"tests", "docs", "build", "dist"}

# A floor may import from itself and from those below; `errors` belongs to all.
# The reference reads the runtime's torch-free formats; the runtime knows nothing of it.
FLOORS = {"errors": 0, "kernels": 1, "runtime": 2, "reference": 3, "export": 4}
FRONT_DOOR = 5
UNPICKLERS = {"pickle", "cPickle", "_pickle", "dill", "joblib", "shelve", "marshal", "cloudpickle"}


def modules(folder=""):
    """Module name parts below the root and the parsed source of each file of the package."""
    for path in sorted((ROOT / folder).rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        if parts[0] in NOT_THE_PACKAGE or any(p.startswith(".") or p.endswith("venv") for p in parts):
            continue
        yield parts, ast.parse(path.read_text(encoding="utf-8"), str(path))


def imports(parts, tree):
    """(line, names) of all that a module imports; names inside the package begin with "reenact"."""
    package = ("reenact", *parts[:-1])
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, tuple(alias.name.split("."))) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = tuple(node.module.split(".")) if node.module else ()
            base = package[: len(package) - node.level + 1] + module if node.level else module
            yield from ((node.lineno, (*base, alias.name)) for alias in node.names)


def floor(name):
    return FLOORS.get(name, FRONT_DOOR)


def test_all_packages_are_listed():
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    found = {".".join(("reenact", *parts[:-1])) for parts, _ in modules()}
    assert set(listed) == found
    for name in listed:
        assert ROOT.joinpath(*name.split(".")[1:], "__init__.py").is_file()


def test_imports_only_point_down():
    wrong = []
    for parts, tree in modules():
        own = parts[0]
        for line, names in imports(parts, tree):
            if names[0] != "reenact" or len(names) < 2:
                continue
            there = names[1]
            sideways = floor(own) < FRONT_DOOR and floor(there) == floor(own) and there != own
            if floor(there) > floor(own) or sideways:
                wrong.append(f"{'/'.join(parts)}.py:{line} imports {'.'.join(names)}")
    assert wrong == []


def test_imports_inside_the_package_are_relative():
    wrong = [
        f"{'/'.join(parts)}.py:{node.lineno}"
        for parts, tree in modules()
        for node in ast.walk(tree)
        if (isinstance(node, ast.Import) and any(a.name.split(".")[0] == "reenact" for a in node.names))
        or (isinstance(node, ast.ImportFrom) and not node.level and (node.module or "").startswith("reenact"))
    ]
    assert wrong == []


def test_only_the_torch_backend_imports_torch_at_the_users():
    for folder in ("runtime", "kernels"):
        for parts, tree in modules(folder):
            if parts[:3] == ("runtime", "backends", "torch"):
                continue
            for line, names in imports(parts, tree):
                assert names[0] != "torch", f"{'/'.join(parts)}.py:{line}"


def test_the_runtime_unpickles_nothing_and_runs_no_shell():
    for parts, tree in modules("runtime"):
        for line, names in imports(parts, tree):
            assert names[0] not in UNPICKLERS, f"{'/'.join(parts)}.py:{line}"
        for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
            options = {k.arg: getattr(k.value, "value", None) for k in call.keywords}
            where = f"{'/'.join(parts)}.py:{call.lineno}"
            assert not options.get("shell"), where
            if ast.unparse(call.func) in ("np.load", "numpy.load"):
                assert options.get("allow_pickle") is False, where


def test_the_whole_runtime_can_be_imported_without_torch():
    code = (
        "import sys, pkgutil, importlib.util\n"
        "sys.modules['torch'] = None\n"
        "import reenact.runtime as runtime\n"
        "names = [m.name for m in pkgutil.walk_packages(runtime.__path__, runtime.__name__ + '.')]\n"
        "names = [n for n in names if not n.startswith('reenact.runtime.backends.torch.')]\n"
        "if importlib.util.find_spec('fastapi') is None or importlib.util.find_spec('aiortc') is None:\n"
        "    names = [n for n in names if not n.startswith('reenact.runtime.web')]  # needs the extra [web]\n"
        "[importlib.import_module(name) for name in names]\n"
        "import reenact\n"
        "reenact.Reenactor\n"
        "assert not [m for m in sys.modules if m.startswith(('reenact.export', 'reenact.reference'))]\n"
        "print(len(names))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 20


@pytest.mark.parametrize("suffix", [".json", ".jpg", ".npz"])
def test_assets_are_shipped(suffix):
    data = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]
    assert f"*{suffix}" in data["reenact.runtime.assets"]
    assert list((ROOT / "runtime/assets").glob(f"*{suffix}"))


def test_every_module_says_what_it_is_for():
    assert [parts for parts, tree in modules() if not ast.get_docstring(tree)] == []
