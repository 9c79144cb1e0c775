"""Use cases of triggers: what people make of them, the matcher that reads the log for them, deliveries of webhooks, dry runs."""
