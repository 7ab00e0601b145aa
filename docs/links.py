"""Links of the pages to files beside them lead to where the site shows those files.

On the pages as they stand in the repository they lead to the files themselves.  There a link also stands below each
file that is to be shown; the site shows the file, and leaves that link out.
"""

from __future__ import annotations

import posixpath
import re

#: A file that is shown, and the paragraph below it.
_BELOW = re.compile(r"^(--8<--\n(\S+)\n--8<--\n```\n)\n\[\2\]\([^)\n]+\)\n", re.MULTILINE)
_LINK = re.compile(r"\[([^\]]+)\]\(((?:\.\./)+[^)#\s]+)\)")


def on_page_markdown(markdown: str, page: object, **_: object) -> str:
    """What MkDocs calls with each page before it is made HTML."""
    here = posixpath.join("docs", page.file.src_uri)  # type: ignore[attr-defined]
    return _LINK.sub(lambda match: _link(match, posixpath.dirname(here)), _BELOW.sub(r"\1", markdown))


def _link(match: re.Match[str], folder: str) -> str:
    text, target = match.groups()
    path = posixpath.normpath(posixpath.join(folder, target))
    if path.startswith("docs/"):
        return match[0]
    if path.startswith("examples/") and path.endswith(".py"):
        return f"[{text}]({posixpath.relpath('docs/examples.md', folder)}#{anchor(path)})"
    return text


def anchor(path: str) -> str:
    """The place of an example on its page."""
    return path.removeprefix("examples/").removesuffix(".py").replace("/", "-").replace("_", "-")
