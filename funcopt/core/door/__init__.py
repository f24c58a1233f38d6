"""The front door of public functions: what they are given, looked at once, and refused in a sentence."""
