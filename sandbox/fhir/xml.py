"""FHIR JSON to FHIR XML, as far as a CapabilityStatement needs it (FHIR R4, xml.html)."""

from typing import Any
from xml.etree.ElementTree import Element, SubElement, tostring

from sandbox.population.elements import Resource

_ATTRIBUTES = {"extension": "url"}


def to_xml(resource: Resource) -> bytes:
    """Return the resource as an XML document; its dicts hold their elements in the specification's order."""
    root = Element(resource["resourceType"], xmlns="http://hl7.org/fhir")
    _add_children(root, {name: value for name, value in resource.items() if name != "resourceType"})
    document: bytes = tostring(root, encoding="utf-8", xml_declaration=True)
    return document


def _add_children(parent: Element, elements: Resource) -> None:
    for name, value in elements.items():
        for item in value if isinstance(value, list) else [value]:
            _add(parent, name, item)


def _add(parent: Element, name: str, value: Any) -> None:
    """Write a primitive as a `value` attribute, and an extension's url as an attribute of it."""
    if not isinstance(value, dict):
        SubElement(parent, name, value=str(value).lower() if isinstance(value, bool) else str(value))
        return
    attribute = _ATTRIBUTES.get(name)
    element = SubElement(parent, name, {attribute: value[attribute]} if attribute else {})
    _add_children(element, {key: child for key, child in value.items() if key != attribute})
