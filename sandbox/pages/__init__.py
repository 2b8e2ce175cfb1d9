"""What people see: the EHR's home and charts, sign-in, patient selection, approval. Plain HTML, no scripts."""
