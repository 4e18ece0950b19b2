"""Writes the files from which a deployment under systemd or Docker starts."""

import shutil
from pathlib import Path

from models.core.errors import UserError
from simulations.runtime.staging import carried

FILES = Path(__file__).parent / "files"


def write(folder: Path) -> list[Path]:
    """Copy the files into a folder and return where they are; UserError where one is there already."""
    # The image installs what the lock says.
    sources = [*sorted(path for path in FILES.iterdir() if path.is_file()), carried("requirements.lock")]
    taken = [source.name for source in sources if (folder / source.name).exists()]
    if taken:
        raise UserError(f"{folder} holds {', '.join(taken)} already: give another folder")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return [Path(shutil.copyfile(source, folder / source.name)) for source in sources]
    except OSError as error:
        raise UserError(f"cannot write into {folder} ({error.strerror}): give another folder") from error
