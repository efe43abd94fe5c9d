"""Tells other systems what has happened: a webhook, and Slack."""
