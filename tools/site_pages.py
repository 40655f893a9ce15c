"""Pages from outside docs/ in the site: README as its home, changelog and the like; links follow.

A hook of MkDocs. Sources keep links that work in the repository; here they become links of the site.
Every page's Markdown is put beside its HTML, and llms.txt points to it.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[1]
HOMES = {
    "README.md": "index.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
}
COPIED = ("notebooks/walkthrough.ipynb",)


def on_config(config: Any) -> Any:
    """List the reference pages in the navigation, whatever wings there are."""
    pages = sorted(f"reference/{p.name}" for p in (ROOT / "docs" / "reference").glob("*.md"))
    for entry in config.nav:
        if "Reference" in entry:
            entry["Reference"] = pages
    return config


def on_files(files: Files, config: Any) -> Files:
    """Add the pages and files that lie outside docs/."""
    for source, home in HOMES.items():
        text = links_of_site((ROOT / source).read_text(), source)
        files.append(File.generated(config, home, content=text))
    for source in COPIED:
        files.append(File.generated(config, source, abs_src_path=str(ROOT / source)))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Turn a page's links to files outside docs/ into links of the site."""
    if page.file.src_uri in HOMES.values():
        return markdown
    return links_of_site(markdown, f"docs/{page.file.src_uri}")


def on_post_build(config: Any) -> None:
    """Put the Markdown of every page, and llms.txt, beside the HTML."""
    site = Path(config.site_dir)
    for source in [*HOMES, *(p.relative_to(ROOT).as_posix() for p in (ROOT / "docs").rglob("*.md"))]:
        target = site / site_address(source)
        target.write_text(links_of_site((ROOT / source).read_text(), source))
    (site / "llms.txt").write_text(links_of_site((ROOT / "llms.txt").read_text(), "llms.txt"))


def links_of_site(markdown: str, source: str) -> str:
    """The text with every link between files of the repository told in addresses of the site."""
    folder = posixpath.dirname(source)
    here = posixpath.dirname(site_address(source))

    def moved(link: re.Match[str]) -> str:
        path, hash_sign, anchor = link[1].partition("#")
        if not path or ":" in path:
            return link[0]
        target = site_address(posixpath.normpath(posixpath.join(folder, path)))
        return f"]({posixpath.relpath(target, here or '.')}{hash_sign}{anchor})"

    return re.sub(r"\]\(([^)\s]+)\)", moved, markdown)


def site_address(source: str) -> str:
    """Where a file of the repository stands in the site."""
    return HOMES.get(source, source.removeprefix("docs/"))
