"""Public docstrings are numpydoc: a first line of one sentence, parameters that exist, errors that are raised."""

from __future__ import annotations

import ast
import dataclasses
import re
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tools"))
import reference  # noqa: E402

SECTIONS = (
    "Parameters",
    "Attributes",
    "Returns",
    "Yields",
    "Raises",
    "Warns",
    "See Also",
    "Notes",
    "References",
    "Examples",
)
MODULES = list(reference.public_names())


class Documented(NamedTuple):
    """A public class, function or method, the class it stands in, and its docstring."""

    where: str
    node: ast.ClassDef | ast.FunctionDef
    owner: ast.ClassDef | None
    text: str | None


def documented(tree: ast.Module, module: str) -> Iterator[Documented]:
    for node in tree.body:
        if not isinstance(node, ast.ClassDef | ast.FunctionDef) or node.name.startswith("_"):
            continue
        yield Documented(f"{module}.{node.name}", node, None, ast.get_docstring(node))
        for inner in node.body if isinstance(node, ast.ClassDef) else ():
            if isinstance(inner, ast.FunctionDef) and not inner.name.startswith("_"):
                yield Documented(
                    f"{module}.{node.name}.{inner.name}", inner, node, ast.get_docstring(inner)
                )


def problems(entry: Documented) -> Iterator[str]:
    """What is wrong with one docstring, in words."""
    if entry.text is None:
        if entry.owner is None or not entry.owner.bases:  # a method may say what its base says
            yield "has no docstring"
        return
    first, _, rest = entry.text.partition("\n")
    if not first.endswith((".", "?")) or re.search(r"[.?] [A-Z]", first):
        yield f"its first line is not one sentence: {first!r}"
    if rest and rest[0] != "\n":
        yield "its first line goes on in the second"
    found = sections(entry.text)
    for title in found:
        if title not in SECTIONS:
            yield f"has a section {title!r}; numpydoc knows {', '.join(SECTIONS)}"
    named = [name for line in found.get("Parameters", []) for name in names_of(line)]
    if unknown := [name for name in named if name not in parameters(entry)]:
        yield f"documents parameters that it does not have: {', '.join(unknown)}"
    if isinstance(entry.node, ast.FunctionDef):
        said = {name for line in found.get("Raises", []) for name in names_of(line)}
        if unsaid := sorted(raised(entry.node) - said - set(re.findall(r"Raise an? (\w+)", first))):
            yield f"raises {', '.join(unsaid)}, which no section Raises names"


def sections(text: str) -> dict[str, list[str]]:
    """Lines that begin an entry, by the title of the section."""
    found: dict[str, list[str]] = {}
    title = ""
    lines = text.splitlines()
    for line, below in zip(lines, [*lines[1:], ""], strict=True):
        if re.fullmatch(r"-{3,}", below) and line.strip():
            title = line.strip()
            found[title] = []
        elif title and line and not line.startswith((" ", "-", ">>>")):
            found[title].append(line)
    return found


def names_of(line: str) -> list[str]:
    """`a`, `b` of "a, b : what they are"."""
    return [name.strip().lstrip("*") for name in re.split(r" :( |$)", line)[0].split(",")]


def parameters(entry: Documented) -> set[str]:
    """What the callable takes; of a class its fields, inherited ones too, and what its constructor takes."""
    if isinstance(entry.node, ast.FunctionDef):
        return arguments(entry.node)
    fields = {
        n.target.id
        for n in entry.node.body
        if isinstance(n, ast.AnnAssign) and isinstance(n.target, ast.Name)
    }
    constructors = [
        n for n in entry.node.body if isinstance(n, ast.FunctionDef) and n.name == "__init__"
    ]
    if entry.node.bases:
        kind = getattr(import_module(entry.where.rpartition(".")[0]), entry.node.name)
        fields |= (
            {f.name for f in dataclasses.fields(kind)} if dataclasses.is_dataclass(kind) else set()
        )
    return fields.union(*(arguments(n) for n in constructors))


def arguments(node: ast.FunctionDef) -> set[str]:
    a = node.args
    return {p.arg for p in (*a.posonlyargs, *a.args, *a.kwonlyargs, *filter(None, (a.vararg, a.kwarg)))}


def raised(node: ast.FunctionDef) -> set[str]:
    """Errors of the package that the function's own lines raise."""
    calls = [
        n.exc.func for n in ast.walk(node) if isinstance(n, ast.Raise) and isinstance(n.exc, ast.Call)
    ]
    return {
        f.id
        for f in calls
        if isinstance(f, ast.Name) and f.id.endswith("Error") and f.id != "AttributeError"
    }


@pytest.mark.parametrize("module", MODULES)
def test_docstrings_are_numpydoc(module: str) -> None:
    tree = ast.parse(reference.file_of(module).read_text())
    wrong = [f"{entry.where} {p}" for entry in documented(tree, module) for p in problems(entry)]
    assert not wrong, "\n" + "\n".join(wrong)


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("def f(): ...", "has no docstring"),
        ('def f():\n    """Two things. And more."""', "not one sentence"),
        ('def f():\n    """No full stop"""', "not one sentence"),
        ('def f():\n    """One.\n    Two."""', "goes on"),
        (
            'def f(a):\n    """One.\n\n    Parameters\n    ----------\n    a, b : two\n    """',
            "not have: b",
        ),
        ('def f():\n    """One.\n\n    Parametres\n    ----------\n    """', "Parametres"),
        ('def f():\n    """One."""\n    raise DataError("x")', "raises DataError"),
        (
            'class C:\n    """One.\n\n    Parameters\n    ----------\n    a : one\n    """\n    b: int',
            "not have: a",
        ),
    ],
)
def test_what_is_wrong_with_a_docstring_is_said(source: str, said: str) -> None:
    (entry,) = documented(ast.parse(source), "m")
    (problem, *_) = problems(entry)
    assert said in problem


def test_a_docstring_without_fault_passes() -> None:
    source = '''
def f(a, *rest):
    """What comes out.

    Parameters
    ----------
    a, *rest : numbers

    Raises
    ------
    DataError
        If there are none.
    """
    raise DataError("none")
'''
    (entry,) = documented(ast.parse(source), "m")
    assert not list(problems(entry))
