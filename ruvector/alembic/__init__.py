"""Alembic: the migrations of schema ruvector and the installer that runs them.

Takes: migrations/ and sql/.  Gives: a database with schema ruvector at this program's version.
"""
