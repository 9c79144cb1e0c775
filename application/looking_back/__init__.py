"""Looking back: what people ask about what has happened.

rows        the events of a run in short, by number
causes      why something happened, and what came of it
divergence  where two runs differ
difference  two positions of a run, or two runs, side by side
"""
