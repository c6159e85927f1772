"""The frame of a self-contained page: head, style, script, title and foot."""

from __future__ import annotations

import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

HERE = Path(__file__).parent


def render(template: Path, *, command: str, title: str, lead: str, **content: Any) -> str:
    """A page that loads nothing, as text.

    Args:
        template: a Jinja file that extends `frame.html`; what it is given is escaped.
        command: what made the page, without "weakseg".
        title: heading.
        lead: a sentence or two below it.
        content: what the template shows.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader([template.parent, HERE]),
        autoescape=True,
        trim_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    return environment.get_template(template.name).render(
        content,
        css=Markup((HERE / "frame.css").read_text()),
        js=Markup((HERE / "frame.js").read_text()),
        command=command,
        title=title,
        lead=lead,
        version=version("weakseg"),
        date=time.strftime("%d %B %Y"),
    )
