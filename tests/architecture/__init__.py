"""Rules of the code that no type checker knows, each as a test."""
