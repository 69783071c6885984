"""A long video as a run: a folder from which whatever was finished is taken up again, and the loop that fills it."""
