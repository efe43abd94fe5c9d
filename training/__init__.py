"""The pipeline that turns raw data into a model. It runs on the training machine."""
