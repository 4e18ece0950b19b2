"""A resident worker's process, which `start` starts by this file's path."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))  # as Flower does with a ClientApp's

from clients.resident.serve import main

main()
