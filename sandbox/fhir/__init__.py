"""The simulated EHR's FHIR R4 server: `routes` is its door, `interactions` its table of contents."""
