"""The parts of tools/bench_ann.py: data sets, exact truth, engines in processes of their own, rounds and reports."""
