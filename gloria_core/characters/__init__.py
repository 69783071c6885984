"""A character as people keep it: the board of its pictures, character files, pictures found in sheets and videos."""
