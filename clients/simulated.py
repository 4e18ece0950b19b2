"""Whether a node is a part of a simulation, where all is done on the machines of whoever runs polyfed.

What is not known to be one counts as real: its owner is somebody else than who runs the server.
"""

import sys
from collections.abc import Mapping
from typing import Any

SIMULATED = "simulated"
"""Key of a node config by which polyfed's own runtimes, in one process and on Ray, say that it is."""


def is_simulated(node_config: Mapping[str, object]) -> bool:
    """Return whether a node with this config is simulated: by polyfed, or by Flower in an actor of Ray.

    Nothing that a server sends has a say in it. A SuperNode starts the ClientApp in a process of its own,
    which is no actor, and its node config is its owner's.
    """
    return node_config.get(SIMULATED) is True or ray_in_actor() is not None


def ray_in_actor() -> Any:
    """Return the module ray where this process is one of its actors, else None."""
    # Without Ray in the process there is nothing to ask, and importing it takes a second.
    ray = sys.modules.get("ray")
    if ray is None or not ray.is_initialized() or ray.get_runtime_context().get_actor_id() is None:
        return None
    return ray
