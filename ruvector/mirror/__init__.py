"""Keep an index equal to its table.

Takes: changed keys and current rows from capture.  Gives: a position up to which a search sees every change.
"""
