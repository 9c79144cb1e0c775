"""The queue of work in JetStream."""
