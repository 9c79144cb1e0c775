"""The HTTP interface: the conventions of all routes, the routes of each resource, and the documents that describe the interface."""
