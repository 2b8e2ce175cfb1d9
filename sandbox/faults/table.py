"""The whole table."""

from sandbox.faults.authorization import AUTHORIZATION_FAULTS
from sandbox.faults.discovery import DISCOVERY_FAULTS
from sandbox.faults.fhir import FHIR_FAULTS

FAULTS = (*AUTHORIZATION_FAULTS, *DISCOVERY_FAULTS, *FHIR_FAULTS)
