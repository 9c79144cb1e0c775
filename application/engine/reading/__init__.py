"""Reading the log: live, whole, by history, and in the form in which events leave the system."""
