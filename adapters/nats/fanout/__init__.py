"""Every event as a CloudEvent on a NATS subject of its own."""
