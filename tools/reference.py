"""Write docs/reference/ and llms.txt from the package and the pages as they are.

A page a wing, a section a module, every public name listed in it. `tests/test_reference.py` compares
what this would write with what is there.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "src" / "retailrec"
# rooms without a promise: loops over arrays, drawing, and the thin doors of the commands
INNER = {"compute", "report", "cli"}
REFERENCE = """# Reference

Every public name, by the wing that it stands in.
What is not listed here may change without a word; [what a version promises](../compatibility.md) holds for the rest.

LINKS

`retailrec COMMAND --help` is the reference of the commands, `retailrec features` the dictionary of features.
"""  # noqa: E501
SITE_PAGES = ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md")


def main() -> None:
    written = pages()
    folder = ROOT / "docs" / "reference"
    folder.mkdir(exist_ok=True)
    for stale in set(folder.glob("*.md")) - {ROOT / name for name in written}:
        stale.unlink()
    for name, text in written.items():
        (ROOT / name).write_text(text)
    (ROOT / "llms.txt").write_text(llms_txt())


def pages() -> dict[str, str]:
    """Text of each reference page by its path from the root."""
    names = public_names()
    wings = {m.split(".")[1] for m in names if m.count(".")}
    packages = sorted(w for w in wings if (PACKAGE / w).is_dir())
    single = ["retailrec", *(f"retailrec.{w}" for w in sorted(wings - set(packages)))]
    out = {"docs/reference/retailrec.md": page("retailrec", single, names)}
    for wing in packages:
        prefix = f"retailrec.{wing}"
        inside = [m for m in names if m == prefix or m.startswith(prefix + ".")]
        out[f"docs/reference/{wing}.md"] = page(prefix, inside, names)
    links = [
        f"- [`{first_heading(text)}`]({Path(name).name}): {summary(text)}" for name, text in out.items()
    ]
    out["docs/reference/index.md"] = REFERENCE.replace("LINKS", "\n".join(links))
    return out


def page(title: str, modules: list[str], public: dict[str, list[str]]) -> str:
    """Markdown of one page: what each module is, and a directive that lists its names."""
    parts = [f"# {title}\n\n{first_sentence(title)}\n"]
    for module in modules:
        names = public[module]
        if not names:
            continue
        if is_package(module):
            shown = ", ".join(f"`{name}`" for name in names)
            parts.append(f"Import from `{module}`: {shown}.\n")
            continue
        listed = "\n".join(f"        - {name}" for name in names)
        parts.append(f"## {module}\n\n::: {module}\n    options:\n      members:\n{listed}\n")
    return "\n".join(parts)


def public_names() -> dict[str, list[str]]:
    """The public names of each public module, in the order in which they are written."""
    names = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        if any(part.startswith("_") and part != "__init__" for part in parts) or parts[0] in INNER:
            continue
        module = ".".join(["retailrec", *(part for part in parts if part != "__init__")])
        names[module] = names_of(path)
    return names


def names_of(path: Path) -> list[str]:
    """Of a package what `__all__` lists; of a module what it defines and gives no underscore."""
    body = ast.parse(path.read_text()).body
    names = []
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.append(node.name)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names += [t.id for t in targets if isinstance(t, ast.Name)]
            if path.name == "__init__.py" and names[-1:] == ["__all__"] and node.value is not None:
                return list(ast.literal_eval(node.value))
    if path.name == "__init__.py":
        defined = [n.name for n in body if isinstance(n, ast.FunctionDef | ast.ClassDef)]
        return [name for name in defined if not name.startswith("_")]
    return [name for name in dict.fromkeys(names) if not name.startswith("_")]


def is_package(module: str) -> bool:
    return file_of(module).name == "__init__.py"


def file_of(module: str) -> Path:
    path = PACKAGE.joinpath(*module.split(".")[1:])
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def first_sentence(module: str) -> str:
    """First line of a module's docstring."""
    text = ast.get_docstring(ast.parse(file_of(module).read_text())) or ""
    return text.partition("\n")[0]


def llms_txt() -> str:
    """Where to read what, one line a page: title, address, first sentence."""
    readme = (ROOT / "README.md").read_text()
    parts = [f"# {first_heading(readme)}\n\n> {summary(readme)}\n\n## Start\n"]
    parts += [line(ROOT / name) for name in SITE_PAGES if name != "CHANGELOG.md"]
    parts.append("\n## Pages\n")
    parts += [line(path) for path in sorted((ROOT / "docs").glob("*.md"))]
    parts.append("\n## Reference\n")
    parts += [line(path) for path in sorted((ROOT / "docs" / "reference").glob("*.md"))]
    parts += ["\n## Optional\n", line(ROOT / "CHANGELOG.md")]
    return "\n".join(parts) + "\n"


def line(path: Path) -> str:
    text = path.read_text()
    about = summary(text)
    return f"- [{first_heading(text)}]({path.relative_to(ROOT)})" + (f": {about}" if about else "")


def first_heading(text: str) -> str:
    return text.partition("\n")[0].removeprefix("# ")


def summary(text: str) -> str:
    """The first sentence of a page's prose, without links; empty if there is none."""
    outside = re.sub(r"^```.*?^```$", "", text, flags=re.S | re.M)
    for paragraph in outside.split("\n\n")[1:]:
        plain = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", " ".join(paragraph.split()))
        if plain[:1].isalpha() and plain[-1] in ".?:":
            return re.split(r"(?<=[.?]) (?=[A-Z`])", plain)[0].rstrip(":")
    return ""


if __name__ == "__main__":
    main()
