"""`polyfed new strategy`: an installable package with a strategy that works, to start from."""

import re
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from models.core.errors import UserError
from models.core.plugins import offers
from strategies.registry import ENTRY_POINTS, STRATEGIES


def new_strategy(name: str, folder: Path | None) -> Path:
    """Write the package of a strategy into a new folder, ./polyfed-NAME unless given; return it.

    Raises UserError for a name that is no class name or taken, and for a folder that cannot be made.
    """
    if not re.fullmatch(r"[A-Z][A-Za-z0-9]*", name):
        raise UserError(f"a strategy must be named like a class, such as FedThing, got {name!r}")
    if taken := offers(STRATEGIES, ENTRY_POINTS).get(name):
        raise UserError(f"strategy {name!r} is there already ({taken.origin}): give another name")
    package, module = f"polyfed-{name.lower()}", f"polyfed_{name.lower()}"
    folder = folder or Path(package)
    try:
        folder.mkdir(parents=True)
    except OSError as error:
        raise UserError(f"cannot make the folder {folder} ({error}): give a new one with --folder") from error
    environment = Environment(
        loader=PackageLoader("simulations", "catalogue/templates/strategy"),
        undefined=StrictUndefined,
        keep_trailing_newline=True,
    )
    for template in environment.list_templates():
        file = template.removesuffix(".j2").replace("strategy.py", f"{module}.py")
        text = environment.get_template(template).render(name=name, package=package, module=module)
        (folder / file).write_text(text, encoding="utf-8")
    return folder
