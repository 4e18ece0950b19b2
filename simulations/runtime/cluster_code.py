"""The code that a run takes to the nodes of a cluster: polyfed's, and the user's own modules."""

import importlib.util
import shutil
import sys
from pathlib import Path

from models.core.user_code import OURS, user_folder
from simulations.runtime.staging import PACKAGES, copy_code


def stage_for_workers(folder: Path) -> Path:
    """Copy polyfed, and the user's modules that this process has imported, into `folder / "code"`.

    What a module of the user's imports only later must lie in its package, or be installed on every node.
    """
    code = folder / "code"
    packages = Path(__file__).resolve().parents[2]
    copy_code(packages, (*PACKAGES, "simulations"), code)
    # In a checkout it lies elsewhere than the rest.
    if face := importlib.util.find_spec("polyfed"):
        copy_code(Path(str(face.origin)).resolve().parents[1], ("polyfed",), code)
    base = user_folder()
    for name in {name.partition(".")[0] for name in users_modules()}:
        if (base / name).is_dir():
            copy_code(base, (name,), code)
        else:
            shutil.copyfile(base / f"{name}.py", code / f"{name}.py")
    return code


def users_modules() -> dict[str, Path]:
    """Return name -> file of the modules in the user's folder that this process has imported."""
    base = user_folder()
    found = {}
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        inside = base.joinpath(*name.split("."))
        own = (inside / "__init__.py", inside.with_name(f"{inside.name}.py"))
        if file and name.partition(".")[0] not in OURS and Path(file).resolve() in own:
            found[name] = Path(file)
    return found
