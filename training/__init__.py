"""The pipeline that turns raw data into a model; runs on the training machine."""
