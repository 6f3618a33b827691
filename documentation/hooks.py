"""Called by mkdocs: the Python reference lists what ``import colipri`` offers."""

from __future__ import annotations

from typing import Any

import colipri


def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> str:
    """Append one entry per public name to reference.md."""
    if page.file.src_uri != "reference.md":
        return markdown
    entries = [f"::: {module}.{name}" for name, module in colipri._PUBLIC.items()]
    return "\n\n".join([markdown, *entries])
