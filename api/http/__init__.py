"""The HTTP interface: one router for each slice, conventions in deps, errors, middleware and streams."""
