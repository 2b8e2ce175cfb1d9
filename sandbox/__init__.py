"""A simulated EHR: FHIR server, SMART authorization server, and pages a person can use. All data is synthetic."""
