"""What the testing kit of the SDK plays plans with: the rules of runs themselves, over a log in memory."""
