"""The formats lists come in: one module each, and the table of them in `registry`."""
