"""The JSON schema of a scenario file, for editors that complete and check TOML: `polyfed schema`."""

from typing import Any

from simulations.config_block import described
from simulations.options import OPTIONS
from simulations.scenario import CONFIGS


def scenario_schema() -> dict[str, Any]:
    """Return what a scenario file may hold: every run-config key, with what it is and what it may be."""
    properties: dict[str, Any] = {}
    for cls in CONFIGS:
        declared = cls.model_json_schema(by_alias=True)["properties"]
        for field, (key, property_) in zip(cls.model_fields.values(), declared.items(), strict=True):
            del property_["title"]
            properties[key] = property_ | {"description": described(field)}
    for key in OPTIONS:
        properties[key]["type"] = ["string", "object"]
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "A polyfed scenario",
        "type": "object",
        "properties": properties,
        "additionalProperties": False,
    }
