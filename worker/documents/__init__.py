"""What is published with a model so that others can check it: its signature, and what it consists of.

The libraries for this are large. They are imported when they are used, because an idle worker needs none.
"""
