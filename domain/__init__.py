"""Pure rules: commands, events, states, `decide` and `evolve`, one file per slice. No I/O, no clock, no id generation."""
