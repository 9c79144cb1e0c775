"""One file for each topic and version that was ever stored: events that a release wrote must stay readable for ever."""
