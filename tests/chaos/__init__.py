"""What happens to the webhook and to the pods of a cluster when something breaks: `make chaos`."""
