"""SMART client libraries as their authors published them, pointed at the broker: nothing but the base URL is ours."""
