"""Small protocols for the services that the engine needs. Adapters implement them."""
