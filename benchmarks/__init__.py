"""Side-by-side races. Never collected by pytest; each module runs with `python -m benchmarks.<race>`."""
