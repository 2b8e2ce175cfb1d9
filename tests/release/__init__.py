"""What of an EHR's answer is released, and what is not."""
