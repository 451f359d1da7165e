"""Real servers on loopback for tests: our own counting one, and llama.cpp with random weights."""
