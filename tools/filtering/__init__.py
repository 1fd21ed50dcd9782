"""The parts of tools/bench_filter.py: attributes, filters with their truth, engines, rounds and reports."""
