"""As much of JSON Schema as the card's schema is written in, read anew from its specification."""

from __future__ import annotations

from typing import Any

TYPES: dict[str, type | tuple[type, ...]] = {
    "object": dict,
    "array": list,
    "string": str,
    "boolean": bool,
    "null": type(None),
    "number": (int, float),
    "integer": int,
}
KNOWN = {"$schema", "$defs", "$ref", "title", "description", "default", "type", "properties"} | {
    "required", "additionalProperties", "items", "anyOf", "enum", "const", "minItems", "maxItems",
    "prefixItems",
}  # fmt: skip


def problems(value: Any, schema: dict[str, Any], root: dict[str, Any] | None = None) -> list[str]:
    """What of a value its schema refuses; a keyword that is not known here is a problem too."""
    root = root or schema
    found = [f"unknown keyword {name}" for name in schema.keys() - KNOWN]
    if "$ref" in schema:
        found += problems(value, root["$defs"][schema["$ref"].rsplit("/", 1)[1]], root)
    if "anyOf" in schema and all(problems(value, each, root) for each in schema["anyOf"]):
        found.append("fits none")
    if value not in schema.get("enum", [value]) or value != schema.get("const", value):
        found.append("another value")
    wanted = TYPES.get(schema.get("type", ""), object)
    if not isinstance(value, wanted) or (isinstance(value, bool) and wanted not in (bool, object)):
        return [*found, f"not of type {schema.get('type')}"]
    return found + _within(value, schema, root)


def _within(value: Any, schema: dict[str, Any], root: dict[str, Any]) -> list[str]:
    """Of an object's fields and an array's items."""
    found: list[str] = []
    if isinstance(value, dict):
        fields, more = schema.get("properties", {}), schema.get("additionalProperties", True)
        found += [f"{name} is missing" for name in schema.get("required", []) if name not in value]
        for name, item in value.items():
            if name in fields or isinstance(more, dict):
                found += problems(item, fields.get(name, more), root)
            elif more is False:
                found.append(f"{name} is not known")
    if isinstance(value, list) and "items" in schema:
        found += [each for item in value for each in problems(item, schema["items"], root)]
    return found
