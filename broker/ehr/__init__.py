"""The outbound SMART client. It knows nothing of vault, grants or apps: values in, values out."""
