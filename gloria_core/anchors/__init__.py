"""The pictures that carry a character: names of roles and slots, checked anchor sets, superset sampling."""
