"""What compiles a step: Dynamo behind guards, or one graph ahead of the first call; and the passes over graphs that both take."""
