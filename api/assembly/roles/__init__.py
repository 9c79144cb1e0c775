"""The parts and loops of each role. Only processes of a role import the role's file."""
