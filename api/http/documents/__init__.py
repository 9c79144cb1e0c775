"""Documents that describe the interface: OpenAPI, AsyncAPI, schemas of events."""
