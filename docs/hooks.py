"""What the site does to a page on its way: files are included, and links that leave docs/ become names."""

import re
from pathlib import Path
from typing import Any

from mkdocs.exceptions import PluginError

ROOT = Path(__file__).parent.parent
MERMAID = "assets/mermaid.min.js"
"""mermaid 11.17.2 of the npm registry (MIT license); pages without a diagram do not load it."""


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Return the page with what it includes, and without links that the site cannot follow."""
    markdown = re.sub(r"^<!-- include (\S+) -->$", included, markdown, flags=re.MULTILINE)
    if "```mermaid" in markdown:
        page.meta["hide"] = ["toc"]  # a diagram needs the width
    markdown = markdown.replace("<!-- run-config -->", f"```toml\n{run_config()}\n```")
    folder = (ROOT / "docs" / page.file.src_uri).parent
    return re.sub(r"\[([^\]\n]+)\]\((\.\./[^)\s]+)\)", lambda link: name_of(link, folder), markdown)


def on_post_page(output: str, page: Any, **_: Any) -> str:
    """Return the page, with the script that draws diagrams where there is one."""
    if 'class="mermaid"' not in output:
        return output
    script = "../" * page.url.count("/") + MERMAID
    return output.replace("</body>", f'<script src="{script}"></script></body>', 1)


def included(mark: re.Match[str]) -> str:
    """Return a file of the root folder; its links are seen from docs/."""
    text = (ROOT / mark[1]).read_text(encoding="utf-8")
    return re.sub(r"\]\((?!https?:|#)([^)]+)\)", lambda link: seen_from_docs(link[1]), text)


def seen_from_docs(target: str) -> str:
    """Return the end of a link whose target is named from the root folder."""
    return f"]({target.removeprefix('docs/')})" if target.startswith("docs/") else f"](../{target})"


def run_config() -> str:
    """Return the block of pyproject.toml that holds every run-config key."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    return text[text.index("[tool.flwr.app.config]") :].split("\n[", 1)[0].strip()


def name_of(link: re.Match[str], folder: Path) -> str:
    """Return the text of a link to a file of the repository, which must be there."""
    target = (folder / link[2].split("#")[0]).resolve()
    if not target.exists():
        raise PluginError(f"{folder / link[2]} is linked as {link[1]!r}, but is not there")
    if target.is_relative_to(ROOT / "docs"):
        return link[0]
    return link[1] if link[1].startswith("`") or " " in link[1] else f"`{link[1]}`"
