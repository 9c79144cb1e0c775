"""One file for each topic and version that was ever stored: what a release wrote must stay readable for ever."""
