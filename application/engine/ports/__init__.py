"""What the engine needs from outside, as small protocols owned here. Adapters implement them; nobody else knows how."""
