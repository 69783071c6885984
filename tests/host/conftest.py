"""What is collected here."""

collect_ignore = ["inside"]  # those run in processes of their own: see test_inside.py
