"""The routes, a file for each resource: they parse, call a use case or a query, and answer."""
