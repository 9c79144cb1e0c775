"""Rules of the code that a type checker cannot check, each as a test."""
