"""Small protocols for everything that the engine needs from outside. Adapters implement them."""
