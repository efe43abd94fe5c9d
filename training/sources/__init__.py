"""Reading the data: files of several formats become rows of code and description."""
