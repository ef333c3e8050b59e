"""What the page is made of: shipped whole, nothing from elsewhere, nothing that the content policy forbids."""

import ast
import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
STATIC = ROOT / "runtime/web/static"
FILES = {path.name: path.read_text(encoding="utf-8") for path in STATIC.iterdir()}


def test_every_file_of_the_page_is_shipped():
    shipped = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]
    assert "static/*" in shipped["reenact.runtime.web"]
    assert all(path.is_file() for path in STATIC.iterdir()), "a folder in it would not be"


def test_what_files_ask_for_is_there():
    for name, text in FILES.items():
        asked = re.findall(r"""(?:src|href)="/static/([^"]+)"|from "\./([^"]+)\"""", text)
        for source, module in asked:
            assert (source or module) in FILES, f"{name} asks for {source or module}"
    modules = {name for name in FILES if name.endswith(".js")}
    imported = {module for text in FILES.values() for module in re.findall(r'from "\./([^"]+)"', text)}
    assert modules - imported == {"main.js"}, "nothing is left over"


def test_nothing_comes_from_another_server():
    for name, text in FILES.items():
        urls = re.findall(r"(?:https?|wss?)://[^\s\"'`]*|[\"'(]//[\w.]+", text)
        namespaces = {"http://www.w3.org/2000/svg"}
        assert set(urls) - namespaces == set(), name


def test_the_page_needs_no_inline_script_or_style():
    page = FILES["index.html"]
    assert "<style" not in page
    assert " style=" not in page
    assert not re.search(r"\son\w+=", page)
    assert re.findall(r"<script([^>]*)>", page) == [' type="module" src="/static/main.js"']


def test_ids_that_scripts_use_are_on_the_page():
    page_ids = set(re.findall(r'id="([\w-]+)"', FILES["index.html"]))
    assert len(page_ids) == len(re.findall(r'id="([\w-]+)"', FILES["index.html"])), "each is used once"
    for name, text in FILES.items():
        if name.endswith(".js"):
            assert set(re.findall(r'\$\("([\w-]+)"\)', text)) <= page_ids, name


def test_nothing_but_the_command_imports_the_server():
    for path in ROOT.rglob("*.py"):
        parts = path.relative_to(ROOT).parts
        if (
            parts[0] in ("tests", "build")
            or parts[:2] == ("runtime", "web")
            or any(p.startswith(".") for p in parts)
        ):
            continue
        imported = {
            (node.module or "") if isinstance(node, ast.ImportFrom) else alias.name
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
            if isinstance(node, (ast.Import, ast.ImportFrom))
            for alias in node.names
        }
        assert parts == ("cli_serve.py",) or not [name for name in imported if "web" in name.split(".")], path
