"""HTTP in, HTTP out. No decisions: parse, call a flow, translate what it returned or raised."""
