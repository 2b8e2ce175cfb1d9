"""How an app proves who it is: one module per method, each a check that raises `InvalidClient` with its cause."""
