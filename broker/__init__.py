"""SMART on FHIR token broker: EHR tokens stay sealed here; apps hold handles."""

__version__ = "0.1.0"
