"""The `[tool.flwr.app.config]` block of pyproject.toml, written from the config classes: `make config`."""

import json
import re
import sys
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path

from pydantic.fields import FieldInfo

from models.core.refusal import bounds, choices, key_of
from simulations.scenario import CONFIGS

HEADINGS: Mapping[str, str] = {
    "task": "what is learned, and from which data",
    "num-clients": "who holds what",
    "attack": "attacks, to judge strategies by",
    "local-epochs": "training on a client",
    "compression": "what clients send up",
    "num-server-rounds": "the server",
    "num-workers": "the simulation (polyfed run; plain `flwr run` takes --federation-config instead)",
}
"""The first key of a group -> what the group is about."""
WRITTEN_BY = "# Written by `make config` from the docstrings of the config classes."
BLOCK = re.compile(r"^\[tool\.flwr\.app\.config\]\n(?:(?!\[).*\n)*", flags=re.MULTILINE)
WIDTH, COLUMN = 110, 32
"""Characters of a line, and those before its comment."""


def config_block() -> str:
    """Return the block: every run-config key with its default, what it is, and what it may be."""
    lines = ["[tool.flwr.app.config]", WRITTEN_BY]
    for cls in CONFIGS:
        for name, field in cls.model_fields.items():
            key = key_of(name)
            if key in HEADINGS:
                lines.append(f"# --- {HEADINGS[key]} ---")
            lines.extend(_lines(key, field))
    return "\n".join(lines) + "\n"


def with_block(pyproject: str) -> str:
    """Return the text of a pyproject.toml with the block in its place."""
    block = config_block() + "\n"
    return BLOCK.sub(lambda _: block, pyproject, count=1)


def described(field: FieldInfo) -> str:
    """Return what a key is, and what it may be where that is no matter of course."""
    doc = " ".join((field.description or "").split()).removesuffix(".")
    names = ", ".join(f'"{name}"' for name in choices(field))
    allowed = f"one of {names}" if names else bounds(field)
    return f"{doc}; {allowed}" if allowed.startswith(("one of", "in")) else doc


def _lines(key: str, field: FieldInfo) -> Iterator[str]:
    setting = f"{key} = {json.dumps(field.default)}"  # as TOML writes text, numbers and truths
    for part in textwrap.wrap(described(field), WIDTH - COLUMN - 2, break_on_hyphens=False):
        yield f"{setting:<{COLUMN}}# {part}"
        setting = ""


def main() -> None:
    """Write the block into the pyproject.toml of the checkout."""
    path = Path(sys.argv[1] if len(sys.argv) > 1 else "pyproject.toml")
    path.write_text(with_block(path.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
