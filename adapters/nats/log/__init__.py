"""The log in JetStream: the relay that copies it there, and the subscription that reads it."""
