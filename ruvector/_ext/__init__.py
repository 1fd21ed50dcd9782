"""Compiled kernels: arithmetic only.

Takes: pointers and sizes.  Gives: numbers.
"""
