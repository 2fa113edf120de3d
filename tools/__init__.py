"""Tools for those who change the code; each is run by itself: `python tools/NAME.py`."""
