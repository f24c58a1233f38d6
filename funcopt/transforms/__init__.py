"""Links with one general idea each."""
