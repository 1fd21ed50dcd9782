"""Read what the triggers wrote, and the rows it speaks of.

Takes: the changelog and the user's table.  Gives: Collection, ChangeBatch and decoded rows, each with its snapshot.
"""
